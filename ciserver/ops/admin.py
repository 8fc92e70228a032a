"""``gantry admin``: the administrator's name and password, and this user's client logged in."""

from __future__ import annotations

from ciserver.config import Config
from ciserver.ops.credentials import obtain
from ciserver.ops.layout import prepare
from ciserver.ops.up import running_pid, set_up_django, wait_until_up


def admin(config: Config, *, new_password: bool) -> None:
    """Works whether the service runs or not. Raises OpsError."""
    if running_pid(config) is None:
        prepare(config.home)
        set_up_django(config)
    else:
        wait_until_up(config)
    made = obtain(config, called="gantry admin", new_password=new_password)
    print(f"Address   {config.url}\nUser      {made.username}\nPassword  {made.password}")
    print("The client is logged in. Next: ./gantry new PROJECT")
