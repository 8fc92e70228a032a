from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("releases", "0019_given_up")]

    operations = [
        migrations.AddField("environment", "removed_at", models.DateTimeField(null=True)),
        migrations.AddField("environment", "removed_by", models.CharField(blank=True, default="", max_length=150)),
        migrations.AddField("environment", "removal_problem", models.TextField(blank=True, default="")),
    ]
