Filters: ``[[filter]]`` tables in order, found by name or dotted path, typed configuration; bodies stream; scopes, time limits, failure policy, shadows, processes of their own.
