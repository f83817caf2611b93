"""What holds for all tests."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# No test knows how busy the machine is: an example may take its time.
settings.register_profile(
    "aemesh", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("aemesh")

# Behind `nohup`, or in the background of a script, these are ignored, and by all that
# is started too: a test that waits for the end of what it interrupted would hang.
_DEFAULTS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
for _number, _default in _DEFAULTS.items():
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)

# Nor does one depend on the defaults of who runs it.
for _name in [name for name in os.environ if name.startswith("AEMESH_")]:
    if _name not in {"AEMESH_LAB"}:
        del os.environ[_name]
os.environ["AEMESH_CONFIG"] = os.devnull
