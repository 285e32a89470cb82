//! What the common names of media files say: title, season, episode, and whether a file is media at all.

use crate::identity::trim;

/// Extensions of common video and audio files, in lower case.
pub const COMMON_EXTENSIONS: [&str; 33] = [
    "3gp", "aac", "aif", "aiff", "asf", "avi", "flac", "flv", "m2ts", "m4a", "m4b", "m4v", "mka", "mkv", "mov", "mp3",
    "mp4", "mpeg", "mpg", "mts", "mxf", "oga", "ogg", "ogm", "ogv", "opus", "rmvb", "ts", "vob", "wav", "webm", "wma",
    "wmv",
];

/// What a path says of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileName {
    pub title: Option<String>,
    pub season: Option<i32>,
    pub episode: Option<i32>,
}

/// Whether the file called `name` has one of the extensions, in any case; they may be written with a dot before them.
pub fn has_extension<E: AsRef<str>>(name: &str, extensions: &[E]) -> bool {
    let Some((stem, extension)) = name.rsplit_once('.') else {
        return false;
    };
    !stem.is_empty()
        && extensions.iter().any(|wanted| {
            let wanted = wanted.as_ref();
            wanted
                .strip_prefix('.')
                .unwrap_or(wanted)
                .eq_ignore_ascii_case(extension)
        })
}

/// Title, season and episode from the path of a file, as media libraries name them:
///
/// - `Show/Season 01/Show - S01E02 - Name.mkv`, `Show.S01E02.1080p.mkv`, `Show 1x02.mkv`: of several episodes the first
/// - `Show/Season 01/02 - Name.mkv`, `Show/Specials/E03.mkv` (season 0)
/// - `Film (1999).mkv`: a title alone
///
/// The title of an episode is the directory above the season's, else what stands before the episode, else the directory.
/// A year in brackets belongs to the title, for it tells two shows of one name apart. Nothing is invented: a name of no
/// such form gives nothing.
///
/// Source: collection ingest rules, importers.
pub fn read_file_name(path: &str) -> FileName {
    let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let Some(name) = segments.pop() else {
        return FileName::default();
    };
    let stem = match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => name,
    };
    let folder_season = segments.last().and_then(|folder| season_of_folder(folder));
    let show = match folder_season {
        Some(_) => segments.len().checked_sub(2).and_then(|index| title(segments[index])),
        None => None,
    };
    if let Some(found) = find_episode(stem) {
        let above = || {
            segments
                .last()
                .filter(|_| folder_season.is_none())
                .and_then(|folder| title(folder))
        };
        return FileName {
            title: show.or_else(|| title(&stem[..found.starts_at])).or_else(above),
            season: Some(found.season),
            episode: Some(found.episode),
        };
    }
    if let Some(season) = folder_season {
        return FileName {
            title: show,
            season: Some(season),
            episode: leading_episode(stem),
        };
    }
    FileName {
        title: with_year(stem),
        ..FileName::default()
    }
}

/// Season and episode in a name, and where they begin.
struct Found {
    starts_at: usize,
    season: i32,
    episode: i32,
}

/// The first `S01E02` or `1x02` of a name.
fn find_episode(stem: &str) -> Option<Found> {
    let starts = stem
        .char_indices()
        .map(|(at, _)| at)
        .filter(|&at| !stem[..at].ends_with(|before: char| before.is_alphanumeric()));
    starts.into_iter().find_map(|at| {
        let (season, episode) = season_and_episode(&stem[at..]).or_else(|| season_x_episode(&stem[at..]))?;
        Some(Found {
            starts_at: at,
            season,
            episode,
        })
    })
}

/// `S01E02`, `s1.e2`, `S01E02E03`, `S2019E03`.
fn season_and_episode(text: &str) -> Option<(i32, i32)> {
    let (season, rest) = digits(text.strip_prefix(['S', 's'])?, 1, 4)?;
    let rest = rest.trim_start_matches(['.', ' ', '_', '-']);
    let (episode, rest) = digits(rest.strip_prefix(['E', 'e'])?, 1, 4)?;
    ends_word(rest).then_some((season, episode))
}

/// `1x02`; a resolution such as `1920x1080` has more digits.
fn season_x_episode(text: &str) -> Option<(i32, i32)> {
    let (season, rest) = digits(text, 1, 2)?;
    let (episode, rest) = digits(rest.strip_prefix(['x', 'X'])?, 2, 3)?;
    ends_word(rest).then_some((season, episode))
}

/// Whether no other word goes on here; a second episode (`E03`) or a version (`v2`) may.
fn ends_word(rest: &str) -> bool {
    match rest.chars().next() {
        Some('E' | 'e' | 'V' | 'v') => rest[1..].starts_with(|c: char| c.is_ascii_digit()),
        Some(next) => !next.is_alphanumeric(),
        None => true,
    }
}

/// A number of `least` to `most` digits and what follows it.
fn digits(text: &str, least: usize, most: usize) -> Option<(i32, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    if length < least || length > most {
        return None;
    }
    Some((text[..length].parse().ok()?, &text[length..]))
}

/// The season of a directory called `Season 01`, `Series 2`, `S03` or `Specials`.
fn season_of_folder(folder: &str) -> Option<i32> {
    let name = trim(folder).to_ascii_lowercase();
    if name == "specials" {
        return Some(0);
    }
    let number = ["season", "series", "s"]
        .into_iter()
        .find_map(|word| name.strip_prefix(word))?
        .trim_start_matches([' ', '_', '.', '-']);
    match digits(number, 1, 4)? {
        (season, "") => Some(season),
        _ => None,
    }
}

/// The episode at the beginning of a name in a season's directory: `02 - Name`, `E02`, `Episode 2`.
fn leading_episode(stem: &str) -> Option<i32> {
    let name = trim(stem).to_ascii_lowercase();
    let number = ["episode", "ep", "e", ""]
        .into_iter()
        .find_map(|word| name.strip_prefix(word))?
        .trim_start_matches([' ', '_', '.', '-']);
    let (episode, rest) = digits(number, 1, 3)?;
    ends_word(rest).then_some(episode)
}

/// A title of the form `Name (1999)`, with what follows the year cut off.
fn with_year(stem: &str) -> Option<String> {
    let open = stem
        .match_indices('(')
        .map(|(at, _)| at)
        .find(|&at| matches!(digits(&stem[at + 1..], 4, 4), Some((_, rest)) if rest.starts_with(')')))?;
    title(&stem[..open])?;
    title(&stem[..open + "(1999)".len()])
}

/// A title as people write it: dots and underscores stand for blanks where there are no blanks, and separators at its
/// ends go.
fn title(text: &str) -> Option<String> {
    let spaced = if text.contains(' ') {
        text.to_owned()
    } else {
        text.replace(['.', '_'], " ")
    };
    let title = spaced.trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '_' | '.'));
    let title = title.trim_end_matches(['[', '(']).trim_end();
    (!title.is_empty()).then(|| title.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_read(path: &str, title: Option<&str>, season: Option<i32>, episode: Option<i32>) {
        let expected = FileName {
            title: title.map(str::to_owned),
            season,
            episode,
        };
        assert_eq!(read_file_name(path), expected, "{path}");
    }

    #[test]
    fn episodes() {
        for path in [
            "Show/Season 01/Show - S01E02 - Name.mkv",
            "/m/Show/season 1/s01e02.mkv",
            "/m/Show/S01/Other Words 1x02 - Name.mkv",
            "/m/Show/Season 01/02 - Name.mkv",
            "/m/Show/Season 01/Episode 2.mkv",
            "/m/Show/Season_01/E02.mkv",
            "/m/Show - S01E02.mkv",
            "/m/Show.S01E02.1080p.x264.mkv",
            "/m/Show_s1_e2.mkv",
            "/m/Show S01E02E03.mkv",
            "/m/Show S01E02-E03 (1920x1080).mkv",
            "/m/Show [1x02].mkv",
            "/m/Show/S01E02.mkv",
        ] {
            assert_read(path, Some("Show"), Some(1), Some(2));
        }
        assert_read(
            "/m/The.Show.Name.S2019E003.mkv",
            Some("The Show Name"),
            Some(2019),
            Some(3),
        );
        assert_read(
            "/m/Show (2003)/Specials/S00E01.mkv",
            Some("Show (2003)"),
            Some(0),
            Some(1),
        );
        assert_read("/m/Show/Season 02/trailer.mkv", Some("Show"), Some(2), None);
        assert_read("Season 02/x.mkv", None, Some(2), None);
        assert_read("S01E02.mkv", None, Some(1), Some(2));
    }

    #[test]
    fn films_and_other_names() {
        assert_read("/m/Film (1999).mkv", Some("Film (1999)"), None, None);
        assert_read("/m/Film Name (1999) - 1080p.mkv", Some("Film Name (1999)"), None, None);
        for nothing in [
            "/m/a.mkv",
            "/m/1920x1080.mkv",
            "/m/(1999).mkv",
            "/m/US01E02.mkv",
            "/m/S01E02nd.mkv",
            "/m/S99999E1.mkv",
            "/m/.mkv",
            "/m/日本語.mkv",
            "",
            "/",
        ] {
            assert_read(nothing, None, None, None);
        }
    }

    #[test]
    fn extensions_in_any_case() {
        assert!(has_extension("a.MKV", &COMMON_EXTENSIONS));
        assert!(has_extension("a.b.Mp4", &[".mp4"]));
        assert!(!has_extension(".mkv", &COMMON_EXTENSIONS));
        assert!(!has_extension("mkv", &COMMON_EXTENSIONS));
        assert!(!has_extension("a.mkv.part", &COMMON_EXTENSIONS));
        assert!(COMMON_EXTENSIONS.is_sorted());
    }
}
