//! The words a language fills its texts with, and what each variable says in one message.

use super::body::Variable;
use super::facts::{Desk, MessageFacts, SenderName, TIME_WIDEST, UrgencyBand, score_text, time_text};
use super::voice::spelled;
use super::walk::{Faults, Section};
use super::{ComposeError, DRILL};
use crate::domain::alert::TakenBy;
use crate::domain::contact::ContactRole;
use crate::domain::ids::Reference;

/// The most spaces in a row that a value may have (Twilio's error 63013).
const SPACES_MAX: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Words {
    drill: String,
    live: String,
    score_by_hand: String,
    link_absent: String,
    pub(super) acknowledge: String,
    urgency: ByBand,
    taker: Takers,
}

/// How whoever has a case is called before others.
#[derive(Debug, Clone)]
struct Takers {
    counsellor: String,
    lead: String,
    duty_manager: String,
    dashboard: String,
}

#[derive(Debug, Clone)]
pub(super) struct Actions {
    live: ByBand,
    drill: String,
}

#[derive(Debug, Clone)]
pub(super) struct ByBand {
    elevated: String,
    high: String,
    critical: String,
}

impl ByBand {
    fn get(&self, band: UrgencyBand) -> &str {
        match band {
            UrgencyBand::Elevated => &self.elevated,
            UrgencyBand::High => &self.high,
            UrgencyBand::Critical => &self.critical,
        }
    }
}

impl Words {
    pub(super) fn read(mut section: Section, faults: &mut Faults) -> Option<Self> {
        let drill = section.word("drill", faults);
        if let Some(drill) = &drill
            && !drill.contains(DRILL)
        {
            faults.add("words.drill", format!("must contain {DRILL}, so that every reader knows it"));
        }
        let live = section.word("live", faults);
        let score_by_hand = section.word("score_by_hand", faults);
        let link_absent = section.word("link_absent", faults);
        let acknowledge = section.phrase("acknowledge", faults);
        if let Some(acknowledge) = &acknowledge
            && !acknowledge.split(|symbol: char| !symbol.is_alphanumeric()).any(|word| word == "1")
        {
            faults.add("words.acknowledge", "must say to reply 1");
        }
        let urgency = section.section("urgency", faults).map(|mut section| {
            let urgency = ByBand::read(&mut section, faults);
            section.finish(faults);
            urgency
        });
        let taker = section.section("taker", faults).map(|section| Takers::read(section, faults));
        section.finish(faults);
        Some(Self {
            taker: taker??,
            drill: drill?,
            live: live?,
            score_by_hand: score_by_hand?,
            link_absent: link_absent?,
            acknowledge: acknowledge?,
            urgency: urgency??,
        })
    }
}

impl Takers {
    fn read(mut section: Section, faults: &mut Faults) -> Option<Self> {
        let roles = ["counsellor", "lead", "duty_manager", "dashboard"];
        let [counsellor, lead, duty_manager, dashboard] = roles.map(|role| section.word(role, faults));
        section.finish(faults);
        let (counsellor, lead) = (counsellor?, lead?);
        Some(Self { counsellor, lead, duty_manager: duty_manager?, dashboard: dashboard? })
    }

    fn all(&self) -> [&String; 4] {
        [&self.counsellor, &self.lead, &self.duty_manager, &self.dashboard]
    }
}

impl Words {
    /// The word for whoever has the case.
    pub(super) fn taker(&self, taken_by: TakenBy) -> &str {
        match taken_by {
            TakenBy::Contact(ContactRole::Counsellor) => &self.taker.counsellor,
            TakenBy::Contact(ContactRole::Lead) => &self.taker.lead,
            TakenBy::Contact(ContactRole::DutyManager) => &self.taker.duty_manager,
            TakenBy::Contact(ContactRole::EmergencyContact) | TakenBy::Dashboard => &self.taker.dashboard,
        }
    }
}

impl Actions {
    pub(super) fn read(mut section: Section, faults: &mut Faults) -> Option<Self> {
        let live = ByBand::read(&mut section, faults);
        let drill = section.word("drill", faults);
        section.finish(faults);
        Some(Self { live: live?, drill: drill? })
    }
}

impl ByBand {
    fn read(section: &mut Section, faults: &mut Faults) -> Option<Self> {
        let [elevated, high, critical] = UrgencyBand::ALL.map(|band| section.word(band.as_str(), faults));
        Some(Self { elevated: elevated?, high: high?, critical: critical? })
    }
}

/// Whether a provider takes this as a variable's value.
pub(super) fn is_sendable(value: &str) -> bool {
    let longest_gap = value.split(|symbol| symbol != ' ').map(str::len).max().unwrap_or(0);
    !value.trim().is_empty() && !value.chars().any(char::is_control) && longest_gap <= SPACES_MAX
}

/// What each variable says in one message.
pub(super) struct Values {
    pub(super) drill: bool,
    pub(super) reference: String,
    pub(super) score: String,
    pub(super) urgency: String,
    pub(super) time: String,
    pub(super) respond_by: String,
    pub(super) action: String,
    pub(super) link: String,
    pub(super) sender: String,
    pub(super) marker: String,
    pub(super) taker: String,
    pub(super) desk: String,
    pub(super) desk_phone: String,
}

impl Values {
    pub(super) fn of(facts: &MessageFacts, words: &Words, actions: &Actions) -> Result<Self, ComposeError> {
        let score = facts.score.map(|score| score_text(score).ok_or(ComposeError::Score)).transpose()?;
        let link = facts.link.as_ref().map(|base| base.link(facts.reference));
        Ok(Self {
            reference: facts.reference.to_string(),
            score: score.unwrap_or_else(|| words.score_by_hand.clone()),
            time: time_text(facts.raised_at, &facts.time_zone),
            respond_by: time_text(facts.respond_by, &facts.time_zone),
            link: link.unwrap_or_else(|| words.link_absent.clone()),
            sender: facts.sender.to_string(),
            ..Self::worded(words, actions, facts.band, facts.drill)
        })
    }

    /// What an emergency contact may be told, and nothing besides: what the text does not say has no value either.
    pub(super) fn of_desk(
        reference: Reference,
        sender: &SenderName,
        desk: &Desk,
        words: &Words,
        actions: &Actions,
    ) -> Self {
        Self {
            reference: reference.to_string(),
            sender: sender.to_string(),
            desk: desk.name.to_string(),
            desk_phone: desk.phone.expose().to_owned(),
            ..Self::worded(words, actions, UrgencyBand::Elevated, false)
        }
    }

    /// What the file says for this band or for a drill, and nothing else yet.
    fn worded(words: &Words, actions: &Actions, band: UrgencyBand, drill: bool) -> Self {
        let word = |live: &str, marked: &str| if drill { marked.to_owned() } else { live.to_owned() };
        Self {
            drill,
            urgency: word(words.urgency.get(band), &words.drill),
            action: word(actions.live.get(band), &actions.drill),
            marker: word(&words.live, &words.drill),
            taker: words.taker.dashboard.clone(),
            reference: String::new(),
            score: String::new(),
            time: String::new(),
            respond_by: String::new(),
            link: String::new(),
            sender: String::new(),
            desk: String::new(),
            desk_phone: String::new(),
        }
    }

    /// Values to show to whoever approves a template.
    pub(super) fn sample(words: &Words, actions: &Actions) -> Self {
        Self {
            reference: "K7Q4TX3M".to_owned(),
            score: "0.93".to_owned(),
            time: "14:05 IST".to_owned(),
            respond_by: "14:10 IST".to_owned(),
            link: "https://relay.example.org/a/K7Q4TX3M".to_owned(),
            sender: "MITRA".to_owned(),
            taker: words.taker.lead.clone(),
            desk: "care desk".to_owned(),
            desk_phone: "+911123456789".to_owned(),
            ..Self::worded(words, actions, UrgencyBand::High, false)
        }
    }

    /// The widest of each kind that messages can have: every band and a drill, with and without a score and a link.
    pub(super) fn widest(words: &Words, actions: &Actions) -> Vec<Self> {
        let kinds = UrgencyBand::ALL.map(|band| (band, false)).into_iter().chain([(UrgencyBand::High, true)]);
        let taker = words.taker.all().into_iter().max_by_key(|word| word.chars().count()).cloned().unwrap_or_default();
        let link_widest = format!("https://{}", "w".repeat(56));
        let mut all = Vec::new();
        for (band, drill) in kinds {
            for score in ["0.00", &words.score_by_hand] {
                for link in [&link_widest, &words.link_absent] {
                    all.push(Self {
                        reference: "WWWWWWWW".to_owned(),
                        score: score.to_owned(),
                        time: TIME_WIDEST.to_owned(),
                        respond_by: TIME_WIDEST.to_owned(),
                        link: link.clone(),
                        sender: "W".repeat(SenderName::MAX),
                        taker: taker.clone(),
                        desk: "W".repeat(SenderName::MAX),
                        desk_phone: format!("+{}", "0".repeat(15)),
                        ..Self::worded(words, actions, band, drill)
                    });
                }
            }
        }
        all
    }

    /// What a variable says in a call, where codes and numbers are spelled out.
    pub(super) fn spoken(&self, variable: Variable) -> String {
        match variable {
            Variable::Reference => spelled(&self.reference),
            Variable::DeskPhone => spelled(self.desk_phone.trim_start_matches('+')),
            Variable::Score
            | Variable::Urgency
            | Variable::Time
            | Variable::RespondBy
            | Variable::Action
            | Variable::Link
            | Variable::Sender
            | Variable::Drill
            | Variable::Taker
            | Variable::Desk => self.get(variable).to_owned(),
        }
    }

    pub(super) fn get(&self, variable: Variable) -> &str {
        match variable {
            Variable::Reference => &self.reference,
            Variable::Score => &self.score,
            Variable::Urgency => &self.urgency,
            Variable::Time => &self.time,
            Variable::RespondBy => &self.respond_by,
            Variable::Action => &self.action,
            Variable::Link => &self.link,
            Variable::Sender => &self.sender,
            Variable::Drill => &self.marker,
            Variable::Taker => &self.taker,
            Variable::Desk => &self.desk,
            Variable::DeskPhone => &self.desk_phone,
        }
    }
}
