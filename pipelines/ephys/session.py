"""Sessions: subject, time and probes, and the true spikes of simulated recordings."""

from __future__ import annotations

import dj_dagster as dj
from pipelines.ephys.probe import Probe as Probe  # definitions name it
from pipelines.ephys.stores import use_default_stores

use_default_stores()
schema = dj.Schema("ephys_session")


@schema
class Subject(dj.Manual):
    definition = """
    # animals
    subject : varchar(8)
    ---
    species="Mus musculus" : varchar(64)
    sex="U" : enum("F", "M", "O", "U")
    """


@schema
class EphysSession(dj.Manual):
    definition = """
    # a run of the acquisition, with all probes that took part
    -> Subject
    session_datetime : datetime
    ---
    run_name : varchar(64)
    session_notes="" : varchar(4000)
    """

    class Channel(dj.Part):
        definition = """
        # what the columns of a probe's file are
        -> master
        imec : int16                 # number of the probe in the run
        channel : int16              # column of the file
        ---
        -> Probe.Electrode
        """


@schema
class ProbeInsertion(dj.Manual):
    definition = """
    # a probe in the brain, and the files with what it recorded
    -> EphysSession
    insertion_number : int16         # number of the probe in the run
    ---
    -> Probe
    probe_serial : varchar(32)
    ap_file : varchar(255)           # .ap.bin, a path in the store `raw`; the .ap.meta is beside it
    """


@schema
class GroundTruth(dj.Manual):
    definition = """
    # the spikes that were put into a simulated recording
    -> ProbeInsertion
    ---
    spikes : <filepath@raw>          # .npz with an array of samples for each neuron
    """
