from django.db import migrations


def look_anew(apps, schema_editor):
    """Polls saw branches and tags alone: what pull requests are there now, the next look remembers."""
    apps.get_model("webhooks", "Poll").objects.update(heads=None)


class Migration(migrations.Migration):

    dependencies = [
        ('webhooks', '0006_tags_are_looked_at'),
    ]

    operations = [migrations.RunPython(look_anew, migrations.RunPython.noop)]
