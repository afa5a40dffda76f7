//! The two pages in a real browser.

use super::browser::{Browser, Page};
use super::guests::{Chat, STRATEGIES};
use super::support::pki::Pki;

fn joins(page: &Page<'_>, name: &str) {
    page.until("document.querySelector('.on') !== null");
    page.eval("document.querySelector('#text').focus()");
    page.enter(name);
    page.until_log_has(&format!("{name} has joined"));
}

#[test]
fn two_pages_and_nc_talk() {
    let Some(browser) = Browser::start() else { return };
    for strategy in STRATEGIES {
        let chat = Chat::start(&["--strategy", strategy]);
        let (anna, ben) = (browser.open(&chat.page(), 1200, 800), browser.open(&chat.page(), 390, 844));
        joins(&anna, "anna");
        joins(&ben, "ben");
        let Some(mut carl) = chat.nc("carl") else { return };
        anna.until_log_has("carl has joined");
        anna.enter("hello from a page");
        ben.until_log_has("hello from a page");
        assert_eq!(carl.line(), "anna: hello from a page");
        carl.enter("hello from nc");
        anna.until_log_has("hello from nc");
        ben.until_log_has("hello from nc");
        ben.enter("/who");
        ben.until_log_has("here: anna, ben, carl");
        drop(carl);
        anna.until_log_has("carl has left");
        anna.no_errors();
    }
}

#[test]
fn a_taken_name_is_refused_and_another_one_serves() {
    let Some(browser) = Browser::start() else { return };
    let chat = Chat::start(&[]);
    let _anna = chat.liner("anna");
    let page = browser.open(&chat.page(), 1200, 800);
    page.until("document.querySelector('.on') !== null");
    page.enter("anna");
    page.until_log_has("anna is taken");
    joins(&page, "another anna");
    page.no_errors();
}

#[test]
fn a_page_comes_back_after_a_restart_with_its_name_and_what_was_typed() {
    let Some(browser) = Browser::start() else { return };
    let mut chat = Chat::start(&[]);
    let page = browser.open(&chat.page(), 1200, 800);
    joins(&page, "anna");
    let (addr, lines) = (chat.server.addr().to_owned(), chat.lines.clone());
    chat.server.term().well_within(super::support::AT_ONCE);
    page.until_log_has("The server has stopped");
    page.until("document.querySelector('.on') === null");
    page.enter("typed in between"); // it stays in the field
    drop(chat);
    let chat = Chat::start_at(&addr, &["--lines", &lines]);
    page.until("document.querySelector('.on') !== null");
    page.until("document.querySelector('#people').innerText.includes('anna (you)')");
    let mut ben = chat.liner("ben");
    page.until_log_has("ben has joined");
    page.key("Enter", 13);
    assert_eq!(ben.line(), "anna: typed in between");
    page.no_errors();
}

#[test]
fn the_numbers_follow_the_connections() {
    let Some(browser) = Browser::start() else { return };
    for strategy in STRATEGIES {
        let chat = Chat::start(&["--strategy", strategy]);
        let page = browser.open(&format!("{}stats", chat.page()), 1200, 800);
        let [first, second] = [0, 1].map(|i| format!("Number(document.querySelectorAll('#tiles b')[{i}].textContent)"));
        let members: Vec<_> = (0..5).map(|n| chat.liner(&format!("guest {n}"))).collect();
        // Chromium has a connection for the events, and perhaps one in stock.
        page.until(&format!("{first} >= 6 && {second} === 5"));
        drop(members);
        page.until(&format!("{first} >= 1 && {first} <= 3 && {second} === 0"));
        page.until(IS_PLOTTED);
        page.no_errors();
    }
}

/// The first plot has a line of three points or more.
const IS_PLOTTED: &str = "document.querySelector('#plots polyline').getAttribute('points')?.split(' ').length > 2";

/// `SHOTS=FOLDER` keeps the pictures; the ones of the README are made so.
#[test]
fn the_pages_fit_a_desk_and_a_phone_in_light_and_in_the_dark() {
    let Some(browser) = Browser::start() else { return };
    let folder = std::env::var_os("SHOTS").map(std::path::PathBuf::from);
    let shoot = |page: &Page<'_>, name: &str| {
        page.to_front();
        // Nothing moves any more, and nothing sticks out to the side.
        page.eval("document.getAnimations().forEach(one => one.finish())");
        page.until("document.documentElement.scrollWidth <= innerWidth");
        if let Some(folder) = &folder {
            page.screenshot(&folder.join(format!("{name}.png")));
        }
    };
    let chat = Chat::start(&[]);
    let (ada, phone) = (browser.open(&chat.page(), 1200, 860), browser.open(&chat.page(), 390, 844));
    ada.scheme("light");
    phone.scheme("dark");
    shoot(&phone, "phone-welcome");
    joins(&ada, "Ada");
    joins(&phone, "Grace");
    let mut linus = chat.liner("Barbara");
    phone.until_log_has("Barbara has joined");
    for (who, text) in TALK {
        match *who {
            "Ada" => ada.enter(text),
            "Grace" => phone.enter(text),
            _ => linus.send(format!("{text}\n")),
        }
        ada.until_log_has(text);
        phone.until_log_has(text);
    }
    shoot(&ada, "chat");
    shoot(&phone, "phone");
    phone.eval("document.querySelector('#open').click()");
    shoot(&phone, "phone-people");
    phone.key("Escape", 27);
    phone.until("document.querySelector('.listing') === null && document.activeElement.id === 'text'");
    ada.scheme("dark");
    shoot(&ada, "chat-dark");
    let numbers = browser.open(&format!("{}stats", chat.page()), 1200, 860);
    numbers.until(IS_PLOTTED);
    shoot(&numbers, "numbers");
    numbers.size(390, 844);
    shoot(&numbers, "phone-numbers");
    numbers.no_errors();
}

/// All by keys, at the width of a phone.
#[test]
fn a_keyboard_reaches_everything_and_a_screen_reader_hears_it() {
    let Some(browser) = Browser::start() else { return };
    let chat = Chat::start(&[]);
    let page = browser.open(&chat.page(), 390, 844);
    page.until_heard("textbox", "Your name");
    page.until_heard("button", "Join");
    joins(&page, "anna");
    let mut ben = chat.liner("ben");
    ben.send("hello by lines\n");
    page.until_log_has("hello by lines");
    for (role, name) in [
        ("main", ""),
        ("heading", "Chat room"),
        ("StaticText", "connected"),
        ("log", "Messages"),
        ("StaticText", "hello by lines"),
        ("textbox", "Message"),
        ("button", "Send"),
        ("button", "2 here"),
        ("link", "Numbers"),
    ] {
        page.until_heard(role, name);
    }
    assert_eq!(["Messages", "Numbers", "2 here"].map(|_| page.shift_tab()), ["Messages", "Numbers", "2 here"]);
    page.key("Enter", 13);
    page.until_heard("complementary", "Who is here");
    page.until("document.querySelector('#open').ariaExpanded === 'true'");
    page.key("Escape", 27);
    page.until("document.activeElement.id === 'text' && document.querySelector('#open').ariaExpanded === 'false'");
    page.no_errors();
}

const TALK: &[(&str, &str)] = &[
    ("Ada", "Good morning! Does everybody hear me?"),
    ("Grace", "Loud and clear, on the phone."),
    ("Barbara", "And here in a terminal, by nc. Same room."),
    ("Ada", "One port for the page, the sockets and the numbers."),
    ("Ada", "And one thread for all of us."),
    ("Barbara", "Or a thread for each, with --strategy threading. The rest of the program is the same."),
    ("Grace", "Where do I read how it works?"),
    ("Ada", "Begin with room.rs, then on_loop.rs: https://docs.rs/socketserver has the rest."),
];

#[test]
fn https_serves_the_page_and_leaves_the_lines_as_they_are() {
    let (Some(browser), Some(pki)) = (Browser::start(), Pki::make()) else { return };
    for strategy in STRATEGIES {
        let tls = pki.options();
        let args: Vec<&str> = ["--strategy", strategy].into_iter().chain(tls.iter().map(String::as_str)).collect();
        let mut chat = Chat::start(&args);
        let page = browser.open(&format!("https://{}/", chat.server.addr()), 1200, 800);
        joins(&page, "anna");
        let mut ben = chat.liner("ben");
        page.until_log_has("ben has joined");
        page.enter("hello by TLS");
        assert_eq!(ben.line(), "anna: hello by TLS");
        let numbers = browser.open(&format!("https://{}/stats", chat.server.addr()), 1200, 800);
        numbers.until("document.querySelectorAll('#tiles b')[1].textContent === '2'");
        chat.server.term().well_within(super::support::AT_ONCE);
        page.until_log_has("The server has stopped");
    }
}

#[test]
fn what_members_say_and_call_themselves_is_text_and_runs_nowhere() {
    let Some(browser) = Browser::start() else { return };
    let chat = Chat::start(&[]);
    let page = browser.open(&chat.page(), 1200, 800);
    joins(&page, "anna");
    let mut ben = chat.liner("<img src=x onerror=window.hit=1>");
    page.until_log_has("<img src=x onerror=window.hit=1> has joined");
    for text in ["<script>window.hit=1</script>", "<b>bold</b>", "javascript:window.hit=1 https://x/\"onclick=hit"] {
        ben.send(format!("{text}\n"));
        page.until_log_has(text);
    }
    // All links are of the web, and the page may load nothing from elsewhere.
    assert_eq!(page.eval("[...document.querySelectorAll('#log a')].map(a => a.href).join()"), "https://x/");
    assert_eq!(page.eval("fetch('https://127.0.0.1:1/').then(() => 'loaded', () => 'refused')"), "refused");
    assert_eq!(page.eval("document.querySelectorAll('#log b:not(.by b), #log img, #log script').length"), 0);
    assert_eq!(page.eval("window.hit === undefined"), true);
}

#[test]
fn a_reader_who_has_scrolled_away_stays_there_and_the_log_has_an_end() {
    let Some(browser) = Browser::start() else { return };
    let chat = Chat::start(&["--most-said", "1000"]);
    let page = browser.open(&chat.page(), 390, 844);
    joins(&page, "anna");
    let mut ben = chat.liner("ben");
    let lines: String = (1..=600).map(|n| format!("line {n} of many\n")).collect();
    ben.send(lines);
    page.until_log_has("line 600 of many");
    assert_eq!(page.eval("document.querySelector('#log').children.length"), 500);
    page.until("(log => log.scrollTop + log.clientHeight > log.scrollHeight - 5)(document.querySelector('#log'))");
    page.eval("document.querySelector('#log').scrollTop = 1000");
    page.until("document.querySelector('#log').scrollTop === 1000");
    ben.send("one more\n");
    page.until("!document.querySelector('#latest').hidden");
    page.eval("document.querySelector('#latest').click()");
    page.until("document.querySelector('#latest').hidden && document.activeElement.id === 'text'");
    page.no_errors();
}
