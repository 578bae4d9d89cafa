"""all_lower: the bound with all memory on the lower tier."""

from klrubench.policy import Policy


class AllLower(Policy):
    """Every page on the lower tier, which is made large enough."""

    source = "bound"
    chain = "none"
    role = "bound"
    place = "lower"
