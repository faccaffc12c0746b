"""The record of a stream: to take away, and to run again."""

import streamlit as st

from app.watch_tables import StoreError
from app.watching import OtherNumbers, RecordError, Watch, replayed

_LARGEST_MB = 100


def show_record(watch: Watch | None) -> None:
    """A file to take away, and a place where one is run again; None where no stream is shown."""
    with st.expander("The record, and running it again", icon=":material/history:"):
        if watch is not None:
            st.download_button(
                "The whole record, Parquet", data=watch.record, icon=":material/download:",
                file_name="watch.parquet", mime="application/vnd.apache.parquet",
                on_click="ignore", key="watch-record",
            )  # fmt: skip
            st.caption(
                "Every score, question, answer and decision, with the settings and the scores of "
                "normal images: everything that the numbers above follow from. No pictures."
            )
        given = st.file_uploader(
            "Run a record again", type="parquet", max_upload_size=_LARGEST_MB, key="watch-replay"
        )
        if given is not None:
            _show_replayed(given.getvalue())


def _show_replayed(data: bytes) -> None:
    try:
        with st.spinner("Running it again ..."):
            monitor = replayed(data)
    except OtherNumbers as error:
        st.error(f"Not the same numbers. {error}", icon=":material/difference:")
        return
    except (RecordError, StoreError) as error:
        st.error(str(error), icon=":material/error:")
        return
    st.success(
        f"The same numbers, bit for bit: {monitor.items:,} images, {monitor.answered:,} answers, "
        f"{len(monitor.alarms):,} alarms.",
        icon=":material/check_circle:",
    )
