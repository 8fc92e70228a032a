"""What the page says."""

GREETING = "Hello"


def greet(*, commit: str, release: str, environment: str) -> str:
    return f"{GREETING} from {environment}: {release}, commit {commit}\n"
