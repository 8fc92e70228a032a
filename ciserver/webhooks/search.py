"""Finding deliveries: the same words on the page, over the API and on the command line."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from ciserver.webhooks.models import Delivery

MAX_WORDS = 100


def search(found: QuerySet[Delivery], words: str) -> QuerySet[Delivery]:
    """Those whose id, commit, ref, sender or event fits ``words``.

    A number is Gantry's own id, or the beginning of the forge's or of a commit's, like other words;
    a part of a ref or of a sender's name will do.
    """
    words = words.strip()[:MAX_WORDS]
    if not words:
        return found
    fits = (
        Q(delivery_id__istartswith=words)
        | Q(sha__istartswith=words)
        | Q(ref__icontains=words)
        | Q(sender__icontains=words)
        | Q(event__icontains=words)
    )
    if words.isascii() and words.isdecimal() and len(words) < 18:
        fits |= Q(pk=int(words))
    return found.filter(fits)
