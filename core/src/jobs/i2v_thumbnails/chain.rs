//! The chain of sources of a video and what comes down it.
//!
//! The rule has to give the same answer over rows that this run settled already and over rows that it did not reach yet.
//! So what a member would be given counts as its own: a URL of its own is nearer than one from further up, but a path that
//! only stands in for a URL (the first of a map) is farther than any URL, for the member itself would be given that URL.
//! So a video can be decided alone, in any order, and a dry run has nothing to remember. Around a cycle a row's own comes
//! back to it: what it gave to others is nothing to it, nor to those whom it would pass it on to.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::thumbnails::{first_path, is_missing_url, same_map, Map};
use super::{Job, Media};
use crate::identity::trim;
use crate::json::Members;

/// What is known of media and jobs, as the tables have it now.
pub trait Known<'a, J> {
    fn media(&self, id: &str) -> Option<Media<'a, J>>;
    /// The job with this `job_id`.
    fn job(&self, job_id: &str) -> Option<Job<'a>>;
    /// The job that names `media_id` as its result; of several the one with the least `job_id` (in C order).
    fn job_by_result(&self, media_id: &str) -> Option<Job<'a>>;
}

/// Where a media row comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// No job, and no `metadata.originalMediaId`.
    NoJob,
    /// A job that names no source.
    NoSource,
    Media(String),
}

/// The source of a row: of its job by id, else of the job that names it as its result, else `metadata.originalMediaId`
/// where that is a string. A job's source is `media_id`, else `original_media_id`; blank is none.
pub fn source_of<'a, J: Members<'a>>(media: &Media<'a, J>, known: &impl Known<'a, J>) -> Source {
    let given = |id: &Option<Cow<'a, str>>| id.as_deref().filter(|id| !trim(id).is_empty()).map(str::to_owned);
    if let Some(job) = known.job(&media.id).or_else(|| known.job_by_result(&media.id)) {
        return match given(&job.media_id).or_else(|| given(&job.original_media_id)) {
            Some(id) => Source::Media(id),
            None => Source::NoSource,
        };
    }
    let original = media
        .metadata
        .and_then(|metadata| metadata.get("originalMediaId")?.as_str());
    match given(&original) {
        Some(id) => Source::Media(id),
        None => Source::NoJob,
    }
}

/// A value and the id of the row that it stands in.
pub(super) type Found<T> = Option<(T, String)>;

/// The members up the chain of one video, the direct source first.
pub struct Chain<'a, J> {
    members: Vec<Media<'a, J>>,
    /// Whether the chain leads back to the video itself.
    is_cycle: bool,
    /// Where the members begin that lie on a cycle; there are none behind the last.
    ring: usize,
}

/// What comes down a chain.
pub(super) struct Arrived<'a, J> {
    pub url: Found<Cow<'a, str>>,
    pub map: Found<J>,
    /// A private row kept something usable back.
    pub held_back: bool,
}

impl<'a, J> Arrived<'a, J> {
    const fn nothing() -> Self {
        Arrived {
            url: None,
            map: None,
            held_back: false,
        }
    }

    pub const fn is_nothing(&self) -> bool {
        self.url.is_none() && self.map.is_none()
    }
}

impl<'a, J: Members<'a>> Chain<'a, J> {
    /// Walks up from `video`, whose direct source is `source`. It ends at a row without a source, at one that is gone, and
    /// where it meets itself.
    pub fn walk(video: &Media<'a, J>, source: Media<'a, J>, known: &impl Known<'a, J>) -> Self {
        let mut visited: HashSet<String> = HashSet::new();
        let mut chain = Chain {
            members: Vec::new(),
            is_cycle: false,
            ring: usize::MAX,
        };
        let mut next = Some(source);
        while let Some(member) = next {
            if member.id == video.id {
                chain.is_cycle = true;
                chain.ring = 0;
                break;
            }
            if !visited.insert(member.id.clone().into_owned()) {
                let met = chain.members.iter().position(|other| other.id == member.id);
                chain.ring = met.unwrap_or(usize::MAX);
                break;
            }
            next = match source_of(&member, known) {
                Source::Media(id) => known.media(&id),
                Source::NoJob | Source::NoSource => None,
            };
            chain.members.push(member);
        }
        chain
    }

    /// The ids of the members, the direct source first: the rows that the decision read.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| &*member.id)
    }

    /// What arrives at `video`. With `allow_private` nothing is kept back.
    pub(super) fn arrived(&self, video: &Media<'a, J>, allow_private: bool) -> Arrived<'a, J> {
        let mut ring = Ring::of(
            self.is_cycle.then_some(video),
            self.members.get(self.ring..).unwrap_or_default(),
        );
        let mut passed = Arrived::nothing();
        for (index, member) in self.members.iter().enumerate().rev() {
            // What is left are those who stand between this member and the video.
            let is_own_map = index >= self.ring && ring.leave();
            passed = at_member(member, passed, &ring, is_own_map);
            let receiver = match index.checked_sub(1) {
                Some(below) => &self.members[below],
                None => video,
            };
            if !allow_private && is_kept_back(member, receiver) {
                passed = Arrived {
                    held_back: passed.held_back || !passed.is_nothing(),
                    ..Arrived::nothing()
                };
            }
        }
        passed
    }
}

/// Nothing passes from a private row to a public one. Of unknown visibility a source is not private, a receiver public.
fn is_kept_back<J>(source: &Media<'_, J>, receiver: &Media<'_, J>) -> bool {
    source.is_public == Some(false) && receiver.is_public != Some(false)
}

/// What a member has or would be given, from `passed` that comes from further up.
fn at_member<'a, J: Members<'a>>(
    member: &Media<'a, J>,
    passed: Arrived<'a, J>,
    ring: &Ring<'a>,
    is_own_map: bool,
) -> Arrived<'a, J> {
    let from = || member.id.clone().into_owned();
    let map = match Map::read(member.thumbnail_urls) {
        Map::Usable(map) if !is_own_map => Some((map, from())),
        Map::Malformed => None,
        Map::Usable(_) | Map::Missing => passed.map,
    };
    let url = member
        .thumbnail_url
        .clone()
        .filter(|url| !is_missing_url(Some(url)) && !ring.has_given(url))
        .map(|url| (url, from()))
        .or(passed.url)
        .or_else(|| {
            let (map, from) = map.as_ref()?;
            Some((first_path(*map)?, from.clone()))
        });
    Arrived {
        url,
        map,
        held_back: passed.held_back,
    }
}

fn url_of<'a, J>(media: &Media<'a, J>) -> Option<Cow<'a, str>> {
    media.thumbnail_url.clone().filter(|url| !is_missing_url(Some(url)))
}

fn usable_map<'a, J: Members<'a>>(media: &Media<'a, J>) -> Option<J> {
    match Map::read(media.thumbnail_urls) {
        Map::Usable(map) => Some(map),
        Map::Missing | Map::Malformed => None,
    }
}

/// What those on a cycle have themselves, the lowest first: when that comes back to one of them, through rows that it was
/// given to before, it is none.
struct Ring<'a> {
    /// The URL of each, or what its map gave to rows without one; and the number of its map, equal maps having one.
    own: Vec<(Option<Cow<'a, str>>, Option<usize>)>,
    /// How many of those that are left have that URL, and that map.
    urls: HashMap<Cow<'a, str>, usize>,
    maps: Vec<usize>,
}

impl<'a> Ring<'a> {
    fn of<'m, J: Members<'a> + 'm>(video: Option<&'m Media<'a, J>>, members: &'m [Media<'a, J>]) -> Self
    where
        'a: 'm,
    {
        let all = || video.into_iter().chain(members);
        let paths: HashSet<Cow<'a, str>> = all().filter_map(|member| first_path(usable_map(member)?)).collect();
        // Where another URL goes around, no row was given the path of a map: an equal URL is its row's own.
        let all_given = all().filter_map(url_of).all(|url| paths.contains(&url));
        let mut ring = Ring {
            own: Vec::new(),
            urls: HashMap::new(),
            maps: Vec::new(),
        };
        let mut distinct: Vec<J> = Vec::new();
        for member in all() {
            let map = usable_map(member);
            let url = url_of(member).or_else(|| map.and_then(first_path).filter(|_| all_given));
            let class = map.map(|map| {
                let known = distinct.iter().position(|other| same_map(*other, map));
                known.unwrap_or_else(|| {
                    distinct.push(map);
                    ring.maps.push(0);
                    distinct.len() - 1
                })
            });
            if let Some(url) = &url {
                *ring.urls.entry(url.clone()).or_default() += 1;
            }
            if let Some(class) = class {
                ring.maps[class] += 1;
            }
            ring.own.push((url, class));
        }
        ring
    }

    /// The highest goes; says whether its map is that of one that is left.
    fn leave(&mut self) -> bool {
        let Some((url, class)) = self.own.pop() else {
            return false;
        };
        if let Some(count) = url.and_then(|url| self.urls.get_mut(&url)) {
            *count -= 1;
        }
        class.is_some_and(|class| {
            self.maps[class] -= 1;
            self.maps[class] > 0
        })
    }

    fn has_given(&self, url: &str) -> bool {
        self.urls.get(url).is_some_and(|count| *count > 0)
    }
}
