"""What ADD fetches: files (``web``) and commits (``git``), from where a build may."""
