"""The ephys pipeline: Neuropixels recordings imported, spike-sorted, judged, with ground truth."""
