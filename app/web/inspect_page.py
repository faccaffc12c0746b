"""The Inspect page: images in, verdicts with their reasons out."""

import numpy as np
import streamlit as st

from app.web.batch import (
    selected_row,
    show_downloads,
    show_refused,
    show_steps,
    show_summary,
    show_table,
)
from app.web.discoveries import show_discoveries, show_drift
from app.web.header import header
from app.web.inbox_pages import recognised, show_collecting, show_keep
from app.web.inputs import show_inputs
from app.web.job import Batch
from app.web.level import choose_rule
from app.web.map_view import flagged_clusters, show_clusters, show_map
from app.web.network_list import show_network_list
from app.web.progress import show_progress
from app.web.reasons import show_attribution, show_influences, show_neighbours, why_not
from app.web.state import session
from app.web.trust import show_trust
from app.web.verdict import show_verdict
from app.web.watch_sending import show_send
from app.web.what_if import show_what_if
from app.web.why_unknown import show_why_unknown
from app.web.wording import literal, plain
from app.workspace import Workspace
from ood.decision import Rule


def show_results(workspace: Workspace, batch: Batch, rule: Rule, numbers: bool) -> None:
    """Everything that is said of a batch, or of one image."""
    inspection = batch.inspection
    if inspection is None:
        for refused in batch.refused[:20]:
            st.error(f"{literal(refused.name)} {plain(refused.reason)}", icon=":material/block:")
        if not batch.refused:
            st.info("There were no images in there.", icon=":material/image_not_supported:")
        return
    decisions = workspace.decide(inspection, rule)
    several = len(batch.images) > 1
    clusters = flagged_clusters(workspace, batch, decisions, rule)
    if several or batch.refused:
        with st.container(
            horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
        ):
            show_summary(batch, decisions)
            show_keep(workspace, batch, rule.level)
            show_send(workspace, batch)
            show_downloads(workspace, batch, decisions)
    if batch.refused:
        show_refused(batch.refused)
    if not several and not batch.refused and session().collects:
        show_keep(workspace, batch, rule.level)
    if several:
        show_drift(workspace, inspection)
        discoveries = show_discoveries(workspace, batch, inspection, rule, numbers=numbers)
        order = show_table(workspace, batch, decisions, discoveries, clusters)
        show_steps(batch, order)
    row = selected_row(order) if several else 0
    image, decision = batch.images[row], decisions[row]
    named = recognised(workspace, batch, rule.level)
    show_verdict(
        workspace, image, inspection, row, decision, rule, named=named[row], numbers=numbers
    )
    show_why_unknown(workspace, image, inspection, row, decision, rule, numbers=numbers)
    show_neighbours(workspace, inspection, row, decision, numbers=numbers)
    influences = why_not(workspace, inspection, row, image)
    show_influences(workspace, inspection, row, influences, numbers=numbers)
    show_network_list(workspace, image, influences, numbers=numbers)
    show_what_if(workspace, inspection, row, influences, numbers=numbers)
    show_trust(workspace)
    looked, sits = st.columns([2, 5], gap="medium")
    with sits:
        show_map(workspace, rule, batch, decisions, clusters)
    if several:
        show_clusters(batch, decisions, clusters)
    elif not batch.refused:
        show_downloads(workspace, batch, decisions)
    with looked:  # last: the slowest part must not keep the others waiting
        show_attribution(workspace, image, decision)


with header() as workspace:
    numbers = st.toggle("Show the numbers", key="numbers", bind="query-params")
show_inputs(workspace)
show_collecting()
st.divider()
rule = choose_rule(workspace)
job = session().job
if job is None:
    show_map(workspace, rule, None, [], np.empty(0, int))
elif job.error:
    st.error(job.error, icon=":material/error:")
elif job.batch is None:
    show_progress(session())
else:
    show_results(workspace, job.batch, rule, numbers)
