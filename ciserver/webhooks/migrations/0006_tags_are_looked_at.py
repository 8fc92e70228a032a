from django.db import migrations


def look_anew(apps, schema_editor):
    """Polls saw branches alone: the next look remembers what tags are there, and builds none."""
    apps.get_model("webhooks", "Poll").objects.update(heads=None)


class Migration(migrations.Migration):

    dependencies = [
        ('webhooks', '0005_pull_requests'),
    ]

    operations = [migrations.RunPython(look_anew, migrations.RunPython.noop)]
