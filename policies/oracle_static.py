"""oracle_static: the bound of a placement that knows the whole run and never moves."""

from klrubench.policy import Policy


class OracleStatic(Policy):
    """The pages with the most touches of the whole run on the top tier from the start; no migration."""

    source = "bound; HeMem (SOSP'21) and Soar (OSDI'25) compare with the like"
    chain = "the future -> touches of the whole run -> placement"
    role = "bound"
    place = "truth"
    needs_truth = True
