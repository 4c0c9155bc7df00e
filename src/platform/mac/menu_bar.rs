//! The menu bar made of [`menu::BAR`].

use muda::accelerator::{Accelerator, CMD_OR_CTRL, Code, Modifiers};
use muda::{AboutMetadata, IsMenuItem, Menu, MenuEvent, MenuItem, PredefinedMenuItem, Submenu};
use objc2::runtime::{AnyClass, NSObjectProtocol, Sel};
use objc2::{MainThreadMarker, sel};
use objc2_app_kit::NSApplication;

use crate::platform::asked::{self, Asked};
use crate::platform::menu::{self, Command, Item, Native, Role, State};

/// The program's menu bar; without it there is none. It stays with the thread that made it.
pub struct MenuBar {
    _bar: Menu,
    items: Vec<(Command, MenuItem)>,
}

impl MenuBar {
    /// Makes the menu bar of the program.
    pub fn install() -> Result<Option<Self>, String> {
        MainThreadMarker::new().ok_or("a menu bar is made on the main thread")?;
        let made = Self::make();
        made.map(Some).map_err(|reason| format!("The menu bar could not be made: {reason}"))
    }

    fn make() -> Result<Self, String> {
        let (bar, mut items, mut submenus) = (Menu::new(), Vec::new(), Vec::new());
        for menu in menu::BAR {
            let submenu = Submenu::new(menu.title, true);
            for item in menu.items {
                let item: Box<dyn IsMenuItem> = match item {
                    Item::Separator => Box::new(PredefinedMenuItem::separator()),
                    Item::Native(item) => Box::new(native(*item)),
                    Item::Command(command) => {
                        let item = own(*command)?;
                        items.push((*command, item.clone()));
                        Box::new(item)
                    }
                };
                submenu.append(&*item).map_err(|error| error.to_string())?;
            }
            bar.append(&submenu).map_err(|error| error.to_string())?;
            submenus.push((menu.role, submenu));
        }
        MenuEvent::set_event_handler(Some(chosen));
        bar.init_for_nsapp();
        for (role, submenu) in submenus {
            match role {
                Role::Window => submenu.set_as_windows_menu_for_nsapp(),
                Role::Help => submenu.set_as_help_menu_for_nsapp(),
                Role::None => {}
            }
        }
        Ok(Self { _bar: bar, items })
    }

    /// Shows what can be done.
    pub fn follow(&self, state: &State) {
        for (command, item) in &self.items {
            item.set_enabled(command.is_enabled(state));
            item.set_text(command.text(state));
        }
    }
}

fn own(command: Command) -> Result<MenuItem, String> {
    let shortcut = command.shortcut();
    let code: Code = shortcut.code.parse().map_err(|_| format!("{} is no key", shortcut.code))?;
    let shift = if shortcut.shift { Modifiers::SHIFT } else { Modifiers::empty() };
    let accelerator = Accelerator::new(CMD_OR_CTRL | shift, code);
    Ok(MenuItem::with_id(name(command), command.text(&State::default()), true, Some(accelerator)))
}

fn name(command: Command) -> String {
    format!("{command:?}")
}

fn native(item: Native) -> PredefinedMenuItem {
    match item {
        Native::About => PredefinedMenuItem::about(Some("About Galley"), Some(about())),
        Native::Services => PredefinedMenuItem::services(None),
        Native::Hide => PredefinedMenuItem::hide(Some("Hide Galley")),
        Native::HideOthers => PredefinedMenuItem::hide_others(None),
        Native::ShowAll => PredefinedMenuItem::show_all(None),
        Native::CloseWindow => PredefinedMenuItem::close_window(Some("Close")),
        Native::FullScreen => PredefinedMenuItem::fullscreen(Some("Enter Full Screen")),
        Native::Minimize => PredefinedMenuItem::minimize(None),
        Native::Zoom => PredefinedMenuItem::zoom(Some("Zoom")),
        Native::BringAllToFront => PredefinedMenuItem::bring_all_to_front(None),
    }
}

fn about() -> AboutMetadata {
    AboutMetadata {
        name: Some("Galley".to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        credits: Some(concat!(env!("CARGO_PKG_DESCRIPTION"), ".").to_owned()),
        ..AboutMetadata::default()
    }
}

/// AppKit calls it on the main thread, outside of frames, before the window sees the key of a shortcut.
fn chosen(event: MenuEvent) {
    let Some(command) = Command::ALL.into_iter().find(|command| *event.id() == name(*command)) else { return };
    if !panel_takes(command) {
        asked::ask(Asked::Do(command));
    }
}

/// True where a file panel or the About window is in front: what is meant for a text field is handed to it, and all else but
/// quitting waits until it is closed.
fn panel_takes(command: Command) -> bool {
    let Some(main_thread) = MainThreadMarker::new() else { return false };
    let app = NSApplication::sharedApplication(main_thread);
    let Some(front) = app.keyWindow() else { return false };
    if AnyClass::get(c"WinitWindow").is_some_and(|own| front.isKindOfClass(own)) {
        return false;
    }
    let Some(action) = action(command) else { return command != Command::Quit };
    // SAFETY: an action that text fields and panels of AppKit know; without a target, whatever has the keyboard gets it, and an
    // action may come from nowhere.
    unsafe { app.sendAction_to_from(action, None, None) };
    true
}

/// What AppKit calls it in its own text fields.
fn action(command: Command) -> Option<Sel> {
    Some(match command {
        Command::Undo => sel!(undo:),
        Command::Redo => sel!(redo:),
        Command::Cut => sel!(cut:),
        Command::Copy => sel!(copy:),
        Command::Paste => sel!(paste:),
        // ⌘. closes a panel.
        Command::Stop => sel!(cancel:),
        Command::SelectAll => sel!(selectAll:),
        _ => return None,
    })
}
