use super::*;

const NUMBER: u8 = 7;

fn start() -> Timestamp {
    "2026-11-20T08:35:00Z".parse().unwrap()
}

fn address(number: u8) -> AddressKey {
    AddressKey::from_bytes([number; 32])
}

fn hash(code: u8) -> CodeHash {
    CodeHash::from_bytes([code; 32])
}

pub(super) fn id() -> ContactId {
    "c-1".parse().unwrap()
}

pub(super) fn details(number: u8, active: bool) -> ContactDetails {
    let number = Number { address: Sealed("sealed".to_owned()), address_key: address(number) };
    ContactDetails {
        name: Some(Sealed("name".to_owned())),
        role: ContactRole::Counsellor,
        language: "en".parse().unwrap(),
        time_zone: "Asia/Kolkata".parse().unwrap(),
        methods: vec![MethodDetails { channel: Channel::Sms, number: Some(number) }],
        active,
    }
}

pub(super) fn on(roster: Roster, seconds: u64, change: Change) -> Result<Transition, Rejection> {
    let (actor, configured) = (Actor::Service, Directory::default());
    let now = later_by(seconds);
    roster.on(change, &Situation { now, actor: &actor, configured: &configured, senders: &[] })
}

pub(super) fn later_by(seconds: u64) -> Timestamp {
    start() + Duration::from_secs(seconds)
}

pub(super) fn one_person() -> Roster {
    let change =
        Change::AddContact { id: id(), person: PersonKey::from_bytes([1; 32]), details: details(NUMBER, true) };
    on(Roster::empty("north".parse().unwrap()), 0, change).unwrap().roster
}

fn send(roster: Roster, at: u64, code: u8) -> Result<Roster, Rejection> {
    let change = Change::SendCode { id: id(), channel: Channel::Sms, hash: hash(code) };
    on(roster, at, change).map(|made| made.roster)
}

fn confirm(roster: Roster, at: u64, code: u8) -> Result<(Roster, Outcome), Rejection> {
    let change = Change::ConfirmCode { id: id(), channel: Channel::Sms, hash: hash(code) };
    on(roster, at, change).map(|made| (made.roster, made.outcome))
}

pub(super) fn verified() -> Roster {
    confirm(send(one_person(), 1, 1).unwrap(), 2, 1).unwrap().0
}

fn standing(roster: &Roster) -> &Standing {
    &roster.contacts[0].methods[0].standing
}

#[test]
fn a_number_is_used_once_its_code_has_come_back() {
    let configured = Directory::default();
    let sent = send(one_person(), 1, 1).unwrap();
    assert_eq!(sent.directory(&configured).people().count(), 0, "a code that was sent proves nothing");
    let (confirmed, outcome) = confirm(sent, 2, 1).unwrap();
    assert_eq!(outcome, Outcome::Confirmed);
    let people: Vec<Contact> = confirmed.directory(&configured).people().cloned().collect();
    assert_eq!((people.len(), people[0].methods[0].address_key), (1, address(NUMBER)));
}

#[test]
fn a_code_lasts_ten_minutes_by_a_clock_that_may_be_set_either_way() {
    let sent = send(one_person(), 1000, 1).unwrap();
    for (at, counts) in [(1000, true), (1599, true), (1600, false), (401, true), (400, false)] {
        let said = confirm(sent.clone(), at, 1);
        assert_eq!(
            said.map(|(_, outcome)| outcome),
            if counts { Ok(Outcome::Confirmed) } else { Err(Rejection::NoCode) }
        );
    }
}

#[test]
fn the_third_wrong_code_is_the_last_that_may_be_tried() {
    let mut roster = send(one_person(), 1, 1).unwrap();
    for left in [2, 1, 0] {
        let (next, outcome) = confirm(roster, 2, 9).unwrap();
        assert_eq!(outcome, Outcome::WrongCode { tries_left: left });
        roster = next;
    }
    assert_eq!(confirm(roster, 2, 1).unwrap_err(), Rejection::NoCode, "the right one comes too late");
}

#[test]
fn a_phone_gets_a_code_a_minute_and_five_an_hour_and_a_new_one_takes_the_place_of_the_last() {
    let mut roster = one_person();
    for (place, at) in [0, 60, 120, 180, 240].into_iter().enumerate() {
        roster = send(roster, at, u8::try_from(place).unwrap()).unwrap();
        assert_eq!(
            send(roster.clone(), at + 59, 9).unwrap_err(),
            Rejection::TooSoon(Duration::from_secs(if place == 4 { 3301 } else { 1 }))
        );
    }
    assert_eq!(send(roster.clone(), 300, 5).unwrap_err(), Rejection::TooSoon(Duration::from_secs(3300)));
    assert_eq!(confirm(roster.clone(), 250, 3).unwrap().1, Outcome::WrongCode { tries_left: 2 });
    assert_eq!(confirm(roster.clone(), 250, 4).unwrap().1, Outcome::Confirmed);
    assert!(send(roster, 3600, 5).is_ok(), "an hour later the first is forgotten");
}

#[test]
fn another_number_is_unproven_and_the_same_one_stays_proven() {
    let change = |number| Change::ReplaceContact { id: id(), from_version: 1, details: details(number, true) };
    assert!(standing(&on(verified(), 9, change(NUMBER)).unwrap().roster).is_usable());
    assert_eq!(standing(&on(verified(), 9, change(8)).unwrap().roster), &Standing::Unverified);
}

#[test]
fn who_may_have_been_told_is_kept_without_numbers_and_who_was_not_goes() {
    let remove = || Change::RemoveContact { id: id(), from_version: 1 };
    let gone = on(one_person(), 9, remove()).unwrap();
    assert_eq!((gone.outcome, gone.roster.contacts.len()), (Outcome::Removed, 0));
    let kept = on(verified(), 9, remove()).unwrap();
    assert_eq!(kept.outcome, Outcome::Deactivated);
    let contact = &kept.roster.contacts[0];
    assert_eq!((contact.active, contact.methods.len(), contact.version), (false, 0, 2));
    assert_eq!(
        on(verified(), 9, Change::RemoveContact { id: id(), from_version: 2 }).unwrap_err(),
        Rejection::Outdated
    );
}

#[test]
fn a_phone_that_said_stop_is_used_again_after_start_and_not_by_a_code_that_was_on_its_way() {
    let opt_out = || Change::OptOut { channel: Channel::Sms, address: address(NUMBER), by: OptOutBy::Reply };
    let opt_in = || Change::OptIn { channel: Channel::Sms, address: address(NUMBER) };
    let out = on(verified(), 9, opt_out()).unwrap().roster;
    assert!(!standing(&out).is_usable());
    assert!(on(out.clone(), 9, opt_out()).unwrap().audit.is_empty(), "said twice it changes nothing");
    assert_eq!(standing(&on(out, 10, opt_in()).unwrap().roster), &Standing::Verified { at: later_by(2) });
    let never = on(send(one_person(), 1, 1).unwrap(), 9, opt_out()).unwrap().roster;
    assert_eq!(confirm(never.clone(), 10, 1).unwrap_err(), Rejection::NoCode);
    assert_eq!(standing(&on(never, 10, opt_in()).unwrap().roster), &Standing::Unverified);
}

#[test]
fn no_entry_names_a_person_a_number_or_a_code() {
    let mut roster = one_person();
    let mut entries = Vec::new();
    let changes = [
        Change::SendCode { id: id(), channel: Channel::Sms, hash: hash(1) },
        Change::ConfirmCode { id: id(), channel: Channel::Sms, hash: hash(2) },
        Change::ConfirmCode { id: id(), channel: Channel::Sms, hash: hash(1) },
        Change::RevealContact { id: id() },
    ];
    for change in changes {
        let made = on(roster, 1, change).unwrap();
        entries.extend(made.audit.iter().map(|entry| entry.canonical.clone()));
        roster = made.roster;
    }
    let all = entries.concat();
    for never in ["sealed", "name\":\"", &hash(1).to_string(), &hash(2).to_string()] {
        assert!(!all.contains(never), "{never} in {all}");
    }
    assert!(all.contains(&address(NUMBER).to_string()), "the number's hash is there");
}
