"""The workflow floor: computed tables, how their keys are found, reserved and made."""
