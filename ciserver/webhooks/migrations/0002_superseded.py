"""One accepted delivery of each ref is its last one; those before it are superseded."""

from django.db import migrations, models


def mark_superseded(apps, schema_editor):
    Delivery = apps.get_model("webhooks", "Delivery")
    accepted = Delivery.objects.using(schema_editor.connection.alias).filter(verdict="accepted")
    same_ref = {name: models.OuterRef(name) for name in ("project", "ref", "kind")}
    later = accepted.filter(**same_ref, id__gt=models.OuterRef("id"))
    accepted.filter(models.Exists(later)).update(superseded=True)


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="delivery",
            name="superseded",
            field=models.BooleanField(default=False),
        ),
        migrations.AlterField(
            model_name="delivery",
            name="verdict",
            field=models.CharField(
                choices=[
                    ("accepted", "starts a pipeline"),
                    ("ignored", "well signed, but nothing to do"),
                    ("duplicate", "this ref was told to be at this commit already"),
                    ("failed", "could not be used"),
                ],
                max_length=10,
            ),
        ),
        migrations.RunPython(mark_superseded, migrations.RunPython.noop),
        migrations.RemoveConstraint(model_name="delivery", name="accepted_once"),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.UniqueConstraint(
                condition=models.Q(("superseded", False), ("verdict", "accepted")),
                fields=("project", "ref", "kind"),
                name="accepted_last",
            ),
        ),
    ]
