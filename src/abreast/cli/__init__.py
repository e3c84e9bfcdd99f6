"""The command ``abreast``: one file for each subcommand, found by its name (main.py); what they share stands beside them.

::

    main      the group, what every error looks like, the exit statuses
    map       abreast map        lines → inputs → a run → lines: reading, function, task, output
    demo      abreast demo       course (the steps, as real code), stage (where they are played and watched)
"""
