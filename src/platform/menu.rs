//! The menu bar: what it holds, its shortcuts, and what an item asks for. The window's own shortcuts are the same ones, so
//! that a system without a menu bar has them too.

/// Something a person may want done from anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Settings,
    Quit,
    /// What the page in sight works on.
    Open,
    OpenModel,
    Reveal,
    Preview,
    Undo,
    Redo,
    Cut,
    Copy,
    Paste,
    SelectAll,
    Start,
    Pause,
    Stop,
    Models,
    Classify,
    Train,
    Evaluate,
    Compress,
    Memory,
}

/// What a shortcut is, held together with the system's command key: ⌘, or Ctrl elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcut {
    /// The key by its code of the W3C: `KeyO`, `Digit1`, `Comma`.
    pub code: &'static str,
    pub shift: bool,
}

/// What the menu bar has to know of the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    pub can_start: bool,
    pub can_stop: bool,
    /// Work of the page in sight that can be paused, and whether it is.
    pub pause: Option<bool>,
    /// A file is in sight that can be shown where it lies, and a photo that can be shown large.
    pub has_file: bool,
    pub has_photo: bool,
}

impl Command {
    pub const ALL: [Self; 21] = [
        Self::Settings,
        Self::Quit,
        Self::Open,
        Self::OpenModel,
        Self::Reveal,
        Self::Preview,
        Self::Undo,
        Self::Redo,
        Self::Cut,
        Self::Copy,
        Self::Paste,
        Self::SelectAll,
        Self::Start,
        Self::Pause,
        Self::Stop,
        Self::Models,
        Self::Classify,
        Self::Train,
        Self::Evaluate,
        Self::Compress,
        Self::Memory,
    ];

    /// What its menu item says.
    pub fn text(self, state: &State) -> &'static str {
        match self {
            Self::Settings => "Settings…",
            Self::Quit => "Quit Galley",
            Self::Open => "Open…",
            Self::OpenModel => "Open Model…",
            Self::Reveal => super::files::REVEAL,
            Self::Preview => "Quick Look",
            Self::Undo => "Undo",
            Self::Redo => "Redo",
            Self::Cut => "Cut",
            Self::Copy => "Copy",
            Self::Paste => "Paste",
            Self::SelectAll => "Select All",
            Self::Start => "Start",
            Self::Pause if state.pause == Some(true) => "Continue",
            Self::Pause => "Pause",
            Self::Stop => "Stop",
            Self::Models => "Models",
            Self::Classify => "Classify",
            Self::Train => "Train",
            Self::Evaluate => "Evaluate",
            Self::Compress => "Compress",
            Self::Memory => "Memory",
        }
    }

    pub fn shortcut(self) -> Shortcut {
        let plain = |code| Shortcut { code, shift: false };
        let shifted = |code| Shortcut { code, shift: true };
        match self {
            Self::Settings => plain("Comma"),
            Self::Quit => plain("KeyQ"),
            Self::Open => plain("KeyO"),
            Self::OpenModel => shifted("KeyO"),
            Self::Reveal => shifted("KeyR"),
            Self::Preview => plain("KeyY"),
            Self::Undo => plain("KeyZ"),
            Self::Redo => shifted("KeyZ"),
            Self::Cut => plain("KeyX"),
            Self::Copy => plain("KeyC"),
            Self::Paste => plain("KeyV"),
            Self::SelectAll => plain("KeyA"),
            Self::Start => plain("Enter"),
            Self::Pause => shifted("KeyP"),
            Self::Stop => plain("Period"),
            Self::Models => plain("Digit1"),
            Self::Classify => plain("Digit2"),
            Self::Train => plain("Digit3"),
            Self::Evaluate => plain("Digit4"),
            Self::Compress => plain("Digit5"),
            Self::Memory => plain("Digit6"),
        }
    }

    /// Whether it does anything now.
    pub fn is_enabled(self, state: &State) -> bool {
        match self {
            Self::Reveal => state.has_file,
            Self::Preview => state.has_photo,
            Self::Start => state.can_start,
            Self::Pause => state.pause.is_some(),
            Self::Stop => state.can_stop,
            _ => true,
        }
    }

    /// True for what a text field does with its text.
    pub fn edits_text(self) -> bool {
        matches!(self, Self::Undo | Self::Redo | Self::Cut | Self::Copy | Self::Paste | Self::SelectAll)
    }
}

/// An item that the system knows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    About,
    Services,
    Hide,
    HideOthers,
    ShowAll,
    CloseWindow,
    FullScreen,
    Minimize,
    Zoom,
    BringAllToFront,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    Command(Command),
    Native(Native),
    Separator,
}

/// What a menu is to the system beside its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    None,
    /// The system adds the list of windows.
    Window,
    /// The system adds a search of all menus.
    Help,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Menu {
    pub title: &'static str,
    pub role: Role,
    pub items: &'static [Item],
}

/// The menu bar, from left to right.
pub const BAR: [Menu; 7] = [
    Menu {
        title: "Galley",
        role: Role::None,
        items: &[
            Item::Native(Native::About),
            Item::Separator,
            Item::Command(Command::Settings),
            Item::Separator,
            Item::Native(Native::Services),
            Item::Separator,
            Item::Native(Native::Hide),
            Item::Native(Native::HideOthers),
            Item::Native(Native::ShowAll),
            Item::Separator,
            Item::Command(Command::Quit),
        ],
    },
    Menu {
        title: "File",
        role: Role::None,
        items: &[
            Item::Command(Command::Open),
            Item::Command(Command::OpenModel),
            Item::Separator,
            Item::Command(Command::Preview),
            Item::Command(Command::Reveal),
            Item::Separator,
            Item::Native(Native::CloseWindow),
        ],
    },
    Menu {
        title: "Edit",
        role: Role::None,
        items: &[
            Item::Command(Command::Undo),
            Item::Command(Command::Redo),
            Item::Separator,
            Item::Command(Command::Cut),
            Item::Command(Command::Copy),
            Item::Command(Command::Paste),
            Item::Command(Command::SelectAll),
        ],
    },
    Menu {
        title: "Job",
        role: Role::None,
        items: &[Item::Command(Command::Start), Item::Command(Command::Pause), Item::Command(Command::Stop)],
    },
    Menu {
        title: "View",
        role: Role::None,
        items: &[
            Item::Command(Command::Models),
            Item::Command(Command::Classify),
            Item::Command(Command::Train),
            Item::Command(Command::Evaluate),
            Item::Command(Command::Compress),
            Item::Command(Command::Memory),
            Item::Separator,
            Item::Native(Native::FullScreen),
        ],
    },
    Menu {
        title: "Window",
        role: Role::Window,
        items: &[
            Item::Native(Native::Minimize),
            Item::Native(Native::Zoom),
            Item::Separator,
            Item::Native(Native::BringAllToFront),
        ],
    },
    Menu { title: "Help", role: Role::Help, items: &[] },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn commands() -> Vec<Command> {
        let items = BAR.iter().flat_map(|menu| menu.items);
        items.filter_map(|item| if let Item::Command(command) = item { Some(*command) } else { None }).collect()
    }

    #[test]
    fn every_command_is_in_one_menu_and_every_shortcut_is_one_commands() {
        let commands = commands();
        assert_eq!(commands.len(), Command::ALL.len());
        for command in Command::ALL {
            assert!(commands.contains(&command), "{command:?} is in no menu");
        }
        let taken: HashSet<_> = Command::ALL.iter().map(|command| format!("{:?}", command.shortcut())).collect();
        assert_eq!(taken.len(), Command::ALL.len(), "a shortcut is taken twice");
        // Those of the items that the system knows by itself.
        for native in ["KeyH", "KeyW", "KeyM"] {
            assert!(Command::ALL.iter().all(|command| command.shortcut().code != native), "{native} is the system's");
        }
    }

    #[test]
    fn menus_are_where_people_look_for_them() {
        let titles: Vec<&str> = BAR.iter().map(|menu| menu.title).collect();
        assert_eq!(titles, ["Galley", "File", "Edit", "Job", "View", "Window", "Help"]);
        let of = |title: &str| BAR.iter().find(|menu| menu.title == title).map(|menu| menu.items).unwrap();
        assert_eq!(of("Galley").first(), Some(&Item::Native(Native::About)));
        assert_eq!(of("Galley").last(), Some(&Item::Command(Command::Quit)));
        assert_eq!(of("File").last(), Some(&Item::Native(Native::CloseWindow)));
    }

    #[test]
    fn items_follow_what_the_window_can_do() {
        let idle = State::default();
        assert!(Command::Open.is_enabled(&idle) && Command::Quit.is_enabled(&idle) && Command::Paste.is_enabled(&idle));
        for command in [Command::Start, Command::Pause, Command::Stop, Command::Reveal, Command::Preview] {
            assert!(!command.is_enabled(&idle), "{command:?} has nothing to do");
        }
        let running = State { can_stop: true, pause: Some(false), ..idle };
        assert!(Command::Stop.is_enabled(&running) && !Command::Start.is_enabled(&running));
        assert_eq!(Command::Pause.text(&running), "Pause");
        assert_eq!(Command::Pause.text(&State { pause: Some(true), ..running }), "Continue");
        let with_model = State { has_file: true, ..idle };
        assert!(Command::Reveal.is_enabled(&with_model) && !Command::Preview.is_enabled(&with_model));
    }
}
