"""The documentation as somebody follows it: commands of its pages, on a machine of its own."""
