"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No test knows how busy the machine is: an example may take its time.
settings.register_profile(
    "aemesh", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("aemesh")
