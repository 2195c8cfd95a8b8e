//! The file of a listening Unix socket: how it is made, replaced and removed.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Who may connect to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The user that runs the process, and root.
    #[cfg(any(feature = "http", test))]
    Owner,
    /// Also the users of a group; `None`: the group of the process.
    Group(Option<u32>),
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            #[cfg(any(feature = "http", test))]
            Self::Owner => 0o600,
            Self::Group(_) => 0o660,
        }
    }
}

/// A listening socket and its file.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: UnixListener,
    /// `None`: the file is another's.
    _file: Option<SocketFile>,
}

/// The file of a socket. Dropping it removes the file.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode of the file, to recognize the file of another process.
    identity: (u64, u64),
    /// Held as long as the file is there.
    _lock: Lock,
}

impl Bound {
    /// Listens at `path`, without blocking. Replaces a socket that a dead process left.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if another process listens there, `AlreadyExists` if the file is no socket.
    pub(crate) fn new(path: &Path, access: Access) -> io::Result<Self> {
        let lock = Lock::take(path)?;
        clear(path)?;
        // The socket gets its mode under a hidden name, before anybody can find it.
        let hidden = hidden_name(path, &std::process::id().to_string())?;
        drop(fs::remove_file(&hidden));
        let listener = UnixListener::bind(&hidden)?;
        let made = prepare(&listener, &hidden, access).and_then(|file| {
            // Unlike a rename, a link fails if another file is there meanwhile.
            fs::hard_link(&hidden, path)?;
            Ok(file)
        });
        let removed = fs::remove_file(&hidden);
        let file = SocketFile {
            path: path.into(),
            identity: made?,
            _lock: lock,
        };
        removed?;
        Ok(Self {
            listener,
            _file: Some(file),
        })
    }

    /// Takes a socket that another process made, and removes.
    pub(crate) fn adopt(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            _file: None,
        })
    }
}

/// The lock of a socket's path, on a hidden file beside it. Of two processes that find the socket
/// of a dead one, the second must not remove the socket that the first has just made.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(socket: &Path) -> io::Result<Self> {
        let path = hidden_name(socket, "lock")?;
        loop {
            let mut options = OpenOptions::new();
            let file = options
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(in_use()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The one before may have removed the file between the two calls.
            let is_same = |it: fs::Metadata| Ok(identity(&it) == identity(&file.metadata()?));
            match fs::symlink_metadata(&path).and_then(is_same) {
                Ok(true) => return Ok(Self { path, _file: file }),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed before it is unlocked, as closing the file does.
        drop(fs::remove_file(&self.path));
    }
}

fn in_use() -> io::Error {
    io::Error::new(ErrorKind::AddrInUse, "another process listens there")
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own =
            fs::symlink_metadata(&self.path).is_ok_and(|it| identity(&it) == self.identity);
        if is_own && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Removes the socket of a dead process.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let what = "something else than a socket is there";
        return Err(io::Error::new(ErrorKind::AlreadyExists, what));
    }
    match connect_path(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            log::info!("{}: replacing the socket of a dead process", path.display());
            fs::remove_file(path)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // All other results mean that somebody listens.
        Ok(_) | Err(_) => Err(in_use()),
    }
}

/// Connects without waiting: a process that hangs may have a full queue.
pub(crate) fn connect_path(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Returns a hidden name beside `path`.
fn hidden_name(path: &Path, ending: &str) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|it| it.to_str());
    let name = name.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not a file name"))?;
    Ok(path.with_file_name(format!(".{name}.{ending}")))
}

fn prepare(listener: &UnixListener, path: &Path, access: Access) -> io::Result<(u64, u64)> {
    if let Access::Group(Some(group)) = access {
        chown(path, None, Some(group))?;
    }
    fs::set_permissions(path, Permissions::from_mode(access.mode()))?;
    listener.set_nonblocking(true)?;
    fs::symlink_metadata(path).map(|it| identity(&it))
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let name = format!("rustbond-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        drop(fs::remove_dir_all(&folder));
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn socket_is_private_and_is_removed_with_its_owner() {
        let folder = folder("private");
        let path = folder.join("a.sock");
        let bound = Bound::new(&path, Access::Owner).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        let error = Bound::new(&path, Access::Owner).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(bound);
        assert_eq!(names(&folder), 0);
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn socket_of_a_group_has_its_mode_and_its_group() {
        let folder = folder("group");
        let path = folder.join("a.sock");
        let group = fs::metadata(&folder).unwrap().gid();
        let bound = Bound::new(&path, Access::Group(Some(group))).unwrap();
        let made = fs::symlink_metadata(&path).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o660);
        assert_eq!(made.gid(), group);
        drop(bound);
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn of_many_that_find_a_dead_socket_one_gets_it() {
        let folder = folder("race");
        let path = folder.join("a.sock");
        for _ in 0..50 {
            drop(UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(4);
            let taken: Vec<_> = std::thread::scope(|scope| {
                let take = || {
                    start.wait();
                    Bound::new(&path, Access::Owner)
                };
                let threads = [0; 4].map(|_| scope.spawn(take));
                let results = threads.map(|it| it.join().unwrap());
                results.into_iter().filter_map(io::Result::ok).collect()
            });
            assert_eq!(taken.len(), 1);
            assert!(UnixStream::connect(&path).is_ok());
            drop(taken);
            assert_eq!(names(&folder), 0);
        }
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn socket_of_a_dead_process_is_replaced_and_another_file_is_not() {
        let folder = folder("dead");
        let path = folder.join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let bound = Bound::new(&path, Access::Owner).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        // A file that another process made meanwhile stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(bound);
        assert!(path.exists());
        let error = Bound::new(&path, Access::Owner).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        fs::remove_file(&path).unwrap();
        assert_eq!(names(&folder), 0);
        fs::remove_dir(folder).unwrap();
    }
}
