"""all_top: the bound with all memory on the top tier."""

from klrubench.policy import Policy


class AllTop(Policy):
    """Every page on the top tier, which is made large enough: what slowdowns are measured against."""

    source = "bound"
    chain = "none"
    role = "bound"
    place = "top"
