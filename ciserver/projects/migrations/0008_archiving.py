from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("projects", "0007_teammembership")]

    operations = [
        migrations.AddField(
            "project", "archived_at", models.DateTimeField(blank=True, null=True)
        ),
        migrations.AddField("project", "archived_by", models.CharField(blank=True, default="", max_length=150)),
        migrations.AddField("project", "delete_at", models.DateTimeField(blank=True, null=True)),
    ]
