"""What can be wrong with a repository, by who must act.

RepositoryError
├── BadName            a sha, ref or path that Git itself would not take
├── UnknownCommit      the repository has no such commit
├── UnknownFile        no such regular file at that commit
├── FileTooBig         the file is larger than the caller reads
├── FetchFailed        the outside repository gave nothing; ``temporary``: later may help
└── GitFailed          Git ended badly for a reason we did not foresee
"""

from __future__ import annotations


class RepositoryError(Exception):
    """One sentence for a person."""


class BadName(RepositoryError):
    pass


class UnknownCommit(RepositoryError):
    pass


class UnknownFile(RepositoryError):
    pass


class FileTooBig(RepositoryError):
    pass


class FetchFailed(RepositoryError):
    def __init__(self, message: str, *, temporary: bool) -> None:
        super().__init__(message)
        self.temporary = temporary


class GitFailed(RepositoryError):
    pass
