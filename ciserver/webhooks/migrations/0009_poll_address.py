from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0008_verdicts_are_counted")]

    operations = [
        migrations.AddField(
            model_name="poll",
            name="address",
            field=models.CharField(blank=True, default="", max_length=500),
            preserve_default=False,
        )
    ]
