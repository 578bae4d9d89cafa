"""first_touch: pages stay where they were first touched."""

from klrubench.policy import Policy


class FirstTouch(Policy):
    """No migration: pages stay where the allocator put them."""

    source = "get_page_from_freelist (mm/page_alloc.c): fast node first, spill to the slow one below the low watermark"
    status = "the kernel's default without tiering"
    chain = "none"
    role = "bound"
