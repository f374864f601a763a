//! The file of the report, opened before the measurements.

use std::error::Error;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A file that was writable when the program began.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
}

/// Why a file cannot be written, and how to fix it.
#[derive(Debug)]
pub struct Unwritable {
    path: PathBuf,
    why: io::Error,
}

impl Destination {
    /// Opens the file. Its content stays until the report is written; a missing file is created
    /// empty.
    pub fn at(path: &Path) -> Result<Destination, Unwritable> {
        let opened = OpenOptions::new().append(true).create(true).open(path);
        match opened {
            Ok(_) => Ok(Destination {
                path: path.to_owned(),
            }),
            Err(why) => Err(unwritable(path, why)),
        }
    }

    pub fn write(&self, page: &str) -> Result<(), Unwritable> {
        fs::write(&self.path, page).map_err(|why| unwritable(&self.path, why))
    }
}

fn unwritable(path: &Path, why: io::Error) -> Unwritable {
    let path = path.to_owned();
    Unwritable { path, why }
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cure = match self.why.kind() {
            ErrorKind::NotFound => "create its folder first",
            ErrorKind::IsADirectory => "name a file in that folder",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "name a file that you may write"
            }
            ErrorKind::StorageFull => "free some space or name a file elsewhere",
            _ => "name another file",
        };
        let path = self.path.display();
        write!(f, "cannot write the report {path}: {}; {cure}", self.why)
    }
}

impl Error for Unwritable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of one test, removed afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> io::Result<Folder> {
            let path = std::env::temp_dir().join(format!("certify-{name}-{}", std::process::id()));
            fs::create_dir_all(&path)?;
            Ok(Folder(path))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_old_report_stays_until_the_new_one_is_written() -> Result<(), Box<dyn Error>> {
        let folder = Folder::new("before")?;
        let path = folder.0.join("report.html");
        fs::write(&path, "the last report, which was longer")?;
        let destination = Destination::at(&path)?;
        assert_eq!(
            fs::read_to_string(&path)?,
            "the last report, which was longer"
        );
        destination.write("new")?;
        assert_eq!(fs::read_to_string(&path)?, "new");
        Ok(())
    }

    #[test]
    fn an_error_names_the_cure() -> Result<(), Box<dyn Error>> {
        let folder = Folder::new("wrong")?;
        let refused = |path: &Path| match Destination::at(path) {
            Ok(_) => "written".to_owned(),
            Err(error) => error.to_string(),
        };
        let missing = refused(&folder.0.join("no/such/report.html"));
        assert!(missing.ends_with("create its folder first"), "{missing}");
        let directory = refused(&folder.0);
        assert!(
            directory.ends_with("name a file in that folder"),
            "{directory}"
        );
        Ok(())
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_disk_that_is_full_at_the_end_is_an_error_too() -> Result<(), Box<dyn Error>> {
        let full = Destination::at(Path::new("/dev/full"))?;
        let error = full.write("a page").map_err(|error| error.to_string());
        let error = error.err().unwrap_or_default();
        assert!(error.contains("free some space"), "{error}");
        Ok(())
    }
}
