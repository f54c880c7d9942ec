"""Where live results go, one kind a module; an `Outlet` stands between a line and each."""
