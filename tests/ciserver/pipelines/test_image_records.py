"""What a real pipeline pushed to a real registry is written down for the registry's pages."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ciserver.dashboard import image_reading, images, tasks
from ciserver.dashboard.image_difference import between
from ciserver.dashboard.models import ImageRecord, ImageUse, LayerRecord
from ciserver.lib.models import OutboxEntry
from ciserver.pipelines.models import Pipeline
from tests.ciserver.pipelines.workplace import Workplace

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

FILES = {
    "Dockerfile": """FROM busybox
LABEL team=greeters
RUN mkdir /data && head -c 300000 /dev/zero > /data/big && echo 1 > /data/small
# what is deleted here travels all the same
RUN rm /data/big
COPY page /www/
ENV MODE=quick
CMD ["httpd", "-f"]
""",
    "page": "hello\n",
}


def read(pipeline: Pipeline) -> ImageUse:
    assert (pipeline.state, pipeline.reason) == ("passed", "")
    assert OutboxEntry.objects.filter(topic="image.pushed", object_id=pipeline.pk).exists()
    tasks.read_images(pipeline.pk)
    assert not OutboxEntry.objects.filter(topic="image.pushed").exists()
    return ImageUse.objects.get(pipeline=pipeline)


def test_layers_lines_waste_and_difference_of_what_was_pushed(
    workplace: Workplace, alice: Any
) -> None:
    old = read(workplace.run(FILES))
    assert old.image.config["Env"][-1] == "MODE=quick"
    assert old.image.config["Cmd"] == ["httpd", "-f"]
    assert str(old.image.labels.get(name="team")) == "team=greeters"
    rows = images.map_of(old, alice).rows
    own = [(row.place, row.row.instruction.split()[0], row.row.wasted) for row in rows if row.place]
    assert own == [
        ("Dockerfile:3", "RUN", 300_000),
        ("Dockerfile:5", "RUN", 0),
        ("Dockerfile:6", "COPY", 0),
    ]
    assert rows[0].base
    assert old.image.wasted == 300_000
    new = read(workplace.run({"page": "hello again\n"}))
    difference = between(old.image, new.image)
    assert [(one.sign, one.path, one.grown) for one in difference.files] == [("~", "www/page", 6)]
    assert len(difference.fresh) == len(difference.gone) == 1
    assert [len(row.shared) for row in images.map_of(new, alice).rows] == [1, 1, 1, 0]


def test_what_is_known_is_not_read_again_and_an_absent_registry_is_asked_later(
    workplace: Workplace, monkeypatch: Any
) -> None:
    pipeline = workplace.run({**FILES, "page": "another\n"})
    read(pipeline)
    known = LayerRecord.objects.count()
    monkeypatch.setattr(image_reading, "client", None)  # nothing is fetched by it any more
    image_reading.read(pipeline)
    assert LayerRecord.objects.count() == known
    ImageUse.objects.all().delete()
    assert image_reading.promise_unread() == 1
    ImageRecord.objects.all().delete()
    Pipeline.objects.filter(pk=pipeline.pk).update(repository="127.0.0.1:1/hello")
    with pytest.raises(httpx.HTTPError):
        tasks.read_images(pipeline.pk)
    assert OutboxEntry.objects.filter(topic="image.pushed", object_id=pipeline.pk).exists()


def test_an_image_that_the_registry_gave_up_is_told_and_not_asked_for_ever(
    workplace: Workplace,
) -> None:
    pipeline = workplace.run({**FILES, "page": "a third\n"})
    Pipeline.objects.filter(pk=pipeline.pk).update(digest=f"sha256:{'0' * 64}")
    use = read(Pipeline.objects.get(pk=pipeline.pk))
    assert "no longer has sha256:0000" in use.image.trouble
    assert image_reading.promise_unread() == 0


def test_a_layer_whose_bytes_are_not_what_was_promised_is_not_believed(
    workplace: Workplace, monkeypatch: Any
) -> None:
    pipeline = workplace.run({**FILES, "page": "a fourth\n"})
    LayerRecord.objects.all().delete()
    monkeypatch.setattr(image_reading, "MOST_READ", 10)
    use = read(pipeline)
    troubles = set(use.image.layers.values_list("layer__trouble", flat=True))
    assert troubles == {"It was not looked through: it is too large."}
    lying = image_reading._checked(iter([b"other"]), f"sha256:{'0' * 64}", 5)
    with pytest.raises(image_reading.listing.BadLayer, match="not what its digest names"):
        list(lying)
