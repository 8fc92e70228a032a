"""The build job: from the commit to images in the store."""

from __future__ import annotations

from contextlib import closing

from django.conf import settings

from builders.build import BuildRequest, build
from builders.images.store import Image
from builders.shared import SharedCache
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner.commit_files import CommitFiles
from ciserver.pipelines.runner.jobs import JobRun
from ciserver.pipelines.runner.plan import Plan
from ciserver.pipelines.runner.push import Upload
from ciserver.pipelines.runner.recorder import StepRecorder
from ciserver.pipelines.runner.secrets import secrets_for
from ciserver.pipelines.runner.sshkeys import keys_for
from ciserver.pipelines.runner.workshop import also_read, scope_of
from ciserver.repositories import git
from runtime.spec import Network

# By image and stage; None is the Dockerfile's last stage.
Images = dict[tuple[str, str | None], Image]


def build_images(
    run: JobRun,
    plan: Plan,
    image: str,
    shared: SharedCache | None,
    upload: Upload | None,
    files: CommitFiles | None = None,
) -> Images:
    """Every stage of ``image`` that the plan needs. ``upload`` gets each layer as it is ready.

    ``files`` is the commit as far as somebody has opened it already.
    """
    asked = plan.builds[image]
    workshop = run.workshop
    pipeline = run.job.pipeline
    secrets = secrets_for(run, asked.secrets, f"gantry.yml: {_place(image)}.secrets")
    keys = keys_for(pipeline, secrets)
    given = {name: secret.reveal().encode() for name, secret in secrets.items()}
    files = files or CommitFiles(pipeline, git.git_dir(pipeline.project))
    context = files.context(asked)
    then = upload.step_finished if upload is not None else lambda *_: None
    with closing(context), StepRecorder(run.job, run.log, then=then) as recorder:
        request = BuildRequest(
            context=context,
            dockerfile=asked.dockerfile,
            targets=plan.targets(image),
            build_args=asked.args,
            labels=_labels(pipeline),
            secrets={**keys.known_hosts, **given},
            ssh=keys.by_id,
            ssh_hint=keys.hint,
            epoch=int(pipeline.committed_at.timestamp()) if pipeline.committed_at else 0,
            ids=run.ids,
            limits=workshop.limits(),
            network=Network.EGRESS,
            egress_allow=workshop.config.egress_allow,
            keep_failed=workshop.config.keep_failed,
            note=recorder.note,
            scope=scope_of(pipeline),
            also_read=also_read(pipeline),
            shared=shared,
            pack=upload is not None,
            cache_mount_bytes=workshop.config.cache_mount_bytes,
            extra_ca=workshop.config.extra_ca,
            parent=run.cgroup,
        )
        built = build(
            request,
            store=workshop.store,
            state=workshop.state,
            resolve=workshop.resolver_for(pipeline.project),
            listener=recorder,
            cancel=run.cancel,
        )
        return {(image, stage): it for stage, it in built.items()}


def _place(image: str) -> str:
    return f"images.{image}" if image else "build"


def _labels(pipeline: Pipeline) -> dict[str, str]:
    """https://github.com/opencontainers/image-spec/blob/main/annotations.md"""
    return {
        "org.opencontainers.image.revision": pipeline.commit,
        "org.opencontainers.image.source": pipeline.project.clone_url
        or f"{settings.GANTRY.url}/git/{pipeline.project.slug}.git",
    }
