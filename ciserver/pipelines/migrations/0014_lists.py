from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("pipelines", "0013_coverage")]

    operations = [
        migrations.AddIndex(
            model_name="pipeline",
            index=models.Index(fields=["project", column, "number"], name=f"pipeline_{column}"),
        )
        for column in ("ref", "state", "event")
    ]
