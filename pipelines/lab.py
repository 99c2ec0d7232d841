"""The demo's tables: a lab that records pulses and computes heart rates.

The signals are real (see `pipelines.recordings`); the stimuli are made up, so that there is
something to tell sessions apart by.
"""

from __future__ import annotations

import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

import dj_dagster as dj
from pipelines.recordings import read_recording

RECORDINGS = Path(".dj/recordings").resolve()
"""The folder into which acquisition writes the raw files."""

schema = dj.Schema("lab")


@schema
class StimulusType(dj.Lookup):
    definition = """
    # what a subject sees during a trial
    stimulus_type : varchar(32)
    """
    contents = (("rest",), ("music",), ("arithmetic",), ("breathing",))


@schema
class Subject(dj.Manual):
    definition = """
    # people who were recorded
    subject_id : int32
    ---
    recording : varchar(64)   # the HeartPy file with their pulse
    """


@schema
class Session(dj.Manual):
    definition = """
    # one sitting of a subject
    -> Subject
    session_id : int32
    ---
    session_time : datetime
    file_name : varchar(255)  # of the raw recording
    """

    class Trial(dj.Part):
        definition = """
        # a stretch of a session with one stimulus
        -> master
        trial : int16
        ---
        -> StimulusType
        start_s : float64     # from the start of the session
        stop_s : float64
        """


@schema
class FilterParams(dj.Lookup):
    definition = """
    # band-pass filters to try
    filter_id : int16
    ---
    low_hz : float64
    high_hz : float64
    """
    contents = ((1, 0.7, 3.5), (2, 0.5, 8.0))


@schema
class RawData(dj.Imported):
    definition = """
    # the raw recording of a session
    -> Session
    ---
    file_path : varchar(255)
    sampling_rate : float64   # Hz
    data : longblob           # the signal, in converter units
    """

    def make(self, key: dict[str, Any]) -> None:
        path = RECORDINGS / (Session & key).fetch1("file_name")
        data, sampling_rate = read_recording(path)
        self.insert1({**key, "file_path": path, "sampling_rate": sampling_rate, "data": data})


@schema
class Processed(dj.Computed):
    definition = """
    # the recording, centred and scaled
    -> RawData
    ---
    processed_data : longblob
    computed_at : datetime
    """

    def make(self, key: dict[str, Any]) -> None:
        data = (RawData & key).fetch1("data")
        scaled = (data - data.mean()) / data.std()
        self.insert1({**key, "processed_data": scaled, "computed_at": datetime.now()})


@schema
class HeartRate(dj.Computed):
    definition = """
    # the heart rate by HeartPy, once for each filter
    -> RawData
    -> FilterParams
    ---
    bpm : float64             # beats per minute
    ibi_ms : float64          # mean interval between beats
    beats : int32
    filtered : <blob@local>   # the filtered signal, kept in the store
    """

    class Beat(dj.Part):
        definition = """
        # the beats that were found
        -> master
        beat : int32
        ---
        time_s : float64
        """

    def make(self, key: dict[str, Any]) -> None:
        data, rate = (RawData & key).fetch1("data", "sampling_rate")
        low, high = (FilterParams & key).fetch1("low_hz", "high_hz")
        filtered, times, measures = heart_rate(data, rate, low, high)
        self.insert1(
            {
                **key,
                "bpm": measures["bpm"],
                "ibi_ms": measures["ibi"],
                "beats": len(times),
                "filtered": filtered,
            }
        )
        self.Beat.insert({**key, "beat": beat, "time_s": time} for beat, time in enumerate(times))


def heart_rate(
    data: np.ndarray, rate: float, low_hz: float, high_hz: float
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Return the filtered signal, the times of its beats in seconds, and HeartPy's measures.

    Raises
    ------
    heartpy.exceptions.BadSignalWarning
        If the signal is without a pulse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The import is slow and prints warnings; only this table needs it.
        import heartpy

        filtered = heartpy.filter_signal(
            data, [low_hz, high_hz], rate, order=3, filtertype="bandpass"
        )
        found, measures = heartpy.process(heartpy.scale_data(filtered), rate)
    beats = np.array(found["peaklist"])[np.array(found["binary_peaklist"]) == 1]
    return filtered, beats / rate, measures
