"""From a fingerprint to a plan, without torch."""
