//! The file of the control socket: how it is made, replaced and removed.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Only the owner may connect.
const MODE: u32 = 0o600;

/// A listening socket and its file. Dropping it removes the file.
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, to recognize the file of another process.
    file: (u64, u64),
}

impl Bound {
    /// Listens at `path`, without blocking.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        clear(path)?;
        // The socket gets its mode under a hidden name, before anybody can find it.
        let hidden = hidden_name(path)?;
        drop(fs::remove_file(&hidden));
        let listener = UnixListener::bind(&hidden)?;
        let made = prepare(&listener, &hidden).and_then(|file| {
            // Unlike a rename, a link fails if another file is there meanwhile.
            fs::hard_link(&hidden, path)?;
            Ok(file)
        });
        let removed = fs::remove_file(&hidden);
        let file = made?;
        removed?;
        Ok(Self {
            listener,
            path: path.into(),
            file,
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let is_own = fs::symlink_metadata(&self.path).is_ok_and(|it| identity(&it) == self.file);
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
    match connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            log::info!("{}: replacing the socket of a dead process", path.display());
            fs::remove_file(path)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // All other results mean that somebody listens.
        Ok(_) | Err(_) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process listens there",
        )),
    }
}

/// Connects without waiting: a process that hangs may have a full queue.
fn connect(path: &Path) -> io::Result<()> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// Returns a name beside `path` that no other process uses.
fn hidden_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|it| it.to_str());
    let name = name.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not a file name"))?;
    Ok(path.with_file_name(format!(".{name}.{}", std::process::id())))
}

fn prepare(listener: &UnixListener, path: &Path) -> io::Result<(u64, u64)> {
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
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
        let bound = Bound::new(&path).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        let error = Bound::new(&path).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(bound);
        assert_eq!(names(&folder), 0);
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn socket_of_a_dead_process_is_replaced_and_another_file_is_not() {
        let folder = folder("dead");
        let path = folder.join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let bound = Bound::new(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        // A file that another process made meanwhile stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(bound);
        assert!(path.exists());
        let error = Bound::new(&path).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        fs::remove_file(&path).unwrap();
        assert_eq!(names(&folder), 0);
        fs::remove_dir(folder).unwrap();
    }
}
