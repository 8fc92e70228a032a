#!/usr/bin/env python
"""Django's command line for this installation."""

import os
import sys

from django.core.management import execute_from_command_line

from ciserver.lib import loading

if __name__ == "__main__":
    loading.begin()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")
    execute_from_command_line(sys.argv)
