//! Who may do what. Pure decisions over a snapshot of config and directory, so that `explain` asks the very function
//! that the live pipeline asks; and the back-off for wrong passwords.
