//! What clients are told when the store can't take a message, in plain words.

use mail::{EnhancedStatus, Reply};
use store::{NoRoom, StoreError};

/// No room for anything new: 452, ahead of the disk being full (RFC 5321 section 4.2.3, RFC 3463 4.3.1).
pub(crate) fn no_room(no_room: &NoRoom) -> Reply {
    match no_room {
        NoRoom::Disk { .. } | NoRoom::Inodes { .. } => {
            tracing::warn!(reason = %no_room, "mail is refused for now");
            Reply::new(452, EnhancedStatus::new(4, 3, 1), "Out of disk space here; try again later")
        }
        NoRoom::Unavailable => unavailable(),
    }
}

/// The message was not accepted; the client keeps it and tries again.
pub(crate) fn not_admitted(error: &StoreError) -> Reply {
    tracing::error!(%error, "a message could not be stored");
    match error {
        StoreError::NoSpace => {
            Reply::new(452, EnhancedStatus::new(4, 3, 1), "Out of disk space here; try again later")
        }
        StoreError::Failed(_) | StoreError::Fenced(_) | StoreError::Unavailable(_) | StoreError::Closed => {
            unavailable()
        }
        _ => {
            Reply::new(451, EnhancedStatus::new(4, 3, 0), "The message could not be stored; try again later")
        }
    }
}

/// The record of what became of mail is too far behind.
pub(crate) fn history_behind() -> Reply {
    tracing::warn!("mail is refused for now: the history is too far behind (history.max_lag)");
    Reply::new(
        451,
        EnhancedStatus::new(4, 3, 2),
        "Busy recording what became of earlier mail; try again later",
    )
}

/// The node is being taken out of its cluster.
pub(crate) fn draining() -> Reply {
    Reply::new(
        421,
        EnhancedStatus::new(4, 3, 2),
        "This node takes in no more mail; connect again to reach another",
    )
}

fn unavailable() -> Reply {
    Reply::new(451, EnhancedStatus::new(4, 3, 2), "Not accepting mail at the moment; try again later")
}

/// The content of a message just taken in can't be read back.
pub(crate) fn unreadable(error: &std::io::Error) -> Reply {
    tracing::error!(%error, "a message just received cannot be read");
    Reply::new(451, EnhancedStatus::new(4, 3, 0), "The message could not be read back; try again later")
}
