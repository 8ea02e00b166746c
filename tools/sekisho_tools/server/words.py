"""The page's words in Japanese; the keys are the English words that the templates use."""

from __future__ import annotations

import re

JAPANESE = {
    "Sekisho updates": "Sekisho アップデート",
    "Skip to the content": "本文へ移動",
    "Main": "メイン",
    "Devices": "デバイス",
    "Device": "デバイス",
    "Releases": "リリース",
    "Rollouts": "ロールアウト",
    "Rollout": "ロールアウト",
    "Approvals": "承認",
    "Log in": "ログイン",
    "Log out": "ログアウト",
    "Name": "名前",
    "Password": "パスワード",
    "Language": "言語",
    "Wrong name or password.": "名前またはパスワードが違います。",
    "The account is locked for a while.": "アカウントは一時的にロックされています。",
    "Too many failed attempts; wait a while.": "失敗が多すぎます。しばらくお待ちください。",
    "Search": "検索",
    "Name or id": "名前または ID",
    "State": "状態",
    "all": "すべて",
    "problem": "問題あり",
    "in_sync": "最新",
    "pending": "更新待ち",
    "error": "エラー",
    "registered": "登録済み",
    "unknown": "不明",
    "Installed": "インストール済み",
    "Assigned": "割り当て済み",
    "Versions": "バージョン",
    "Last seen": "最終通信",
    "Problems": "問題",
    "none": "なし",
    "never": "なし",
    "seconds": "秒",
    "{} days ago": "{}日前",
    "{} hours ago": "{}時間前",
    "{} minutes ago": "{}分前",
    "{} seconds ago": "{}秒前",
    "update failed": "更新に失敗",
    "silent since it took the update": "更新を受け取った後、応答なし",
    "not heard of for long": "長い間通信なし",
    "devices": "台",
    "No devices.": "デバイスはありません。",
    "Pages": "ページ",
    "Previous": "前へ",
    "Next": "次へ",
    "Page": "ページ",
    "Address": "アドレス",
    "Since": "登録日",
    "Device key": "デバイス鍵",
    "Attributes": "属性",
    "Notes": "メモ",
    "The device has said nothing of itself.": "デバイスからの情報はまだありません。",
    "History": "履歴",
    "No updates yet.": "更新はまだありません。",
    "Signed reports": "署名付きレポート",
    "No reports.": "レポートはありません。",
    "verified": "検証済み",
    "unverified": "未検証",
    "invalid": "無効",
    "What is wrong": "問題点",
    "by rollout": "ロールアウト",
    "silent": "応答なし",
    "Cancel": "キャンセル",
    "Stop waiting": "待機を終了",
    "Confirm": "確認",
    "Deny": "拒否",
    "finished": "完了",
    "running": "実行中",
    "retrieved": "受信済み",
    "download": "ダウンロード中",
    "downloaded": "ダウンロード済み",
    "warning": "警告",
    "canceling": "キャンセル中",
    "canceled": "キャンセル済み",
    "cancel_rejected": "キャンセル拒否",
    "wait_for_confirmation": "確認待ち",
    "installed on": "インストール台数",
    "Contents": "内容",
    "bytes": "バイト",
    "No releases.": "リリースはありません。",
    "No rollouts.": "ロールアウトはありません。",
    "Progress": "進捗",
    "Groups": "グループ",
    "Group": "グループ",
    "Total": "合計",
    "notstarted": "未開始",
    "scheduled": "予定",
    "cancelled": "キャンセル済み",
    "ready": "準備完了",
    "starting": "開始中",
    "paused": "一時停止",
    "stopping": "停止中",
    "stopped": "停止",
    "waiting_for_approval": "承認待ち",
    "approval_denied": "却下",
    "creating": "作成中",
    "Release": "リリース",
    "Made by": "作成者",
    "Silence counts as failure after": "応答なしを失敗とみなすまで",
    "success at {} %, stops above {} % errors": "成功 {} % で次へ、エラー {} % 超で停止",
    "errors": "エラー",
    "Start": "開始",
    "Pause": "一時停止",
    "Resume": "再開",
    "Stop": "停止",
    "Retry the failed": "失敗した台を再試行",
    "Next group now": "次のグループを開始",
    "Approve": "承認する",
    "Stop this rollout": "このロールアウトを停止",
    "Devices that have begun are asked to cancel; the others never get it.": "開始済みのデバイスにはキャンセルを依頼し、他のデバイスには配信しません。",  # noqa: E501
    "Really stop": "本当に停止する",
    "Rollouts that wait": "承認待ちのロールアウト",
    "Updates that wait to be confirmed": "確認待ちの更新",
    "Nothing waits.": "待機中のものはありません。",
    "What operators did": "操作の記録",
    "When": "日時",
    "Who": "操作者",
    "What": "操作",
    "Details": "詳細",
    "Update": "更新",
    "Decision": "判断",
    "This cannot be done": "実行できません",
    "Back": "戻る",
    "You may look, not change anything.": "閲覧のみ可能です。",
    "decommissioned": "廃棄済み",
    "Decommissioned": "廃棄済み",
    "Operator order": "操作命令",
    "waits for the device": "デバイスの受信待ち",
    "Decommission this device": "このデバイスを廃棄",
    "Its identity is refused from then on, even when it is deleted. There is no way back.": "以後、この ID は削除後も拒否されます。元には戻せません。",  # noqa: E501
    "Why": "理由",
    "Really decommission": "本当に廃棄する",
    "This page refreshes itself.": "このページは自動的に更新されます。",
}

NAMES = {
    "device": "デバイス",
    "product": "製品",
    "made": "作成日時",
    "mode": "モード",
    "says of itself": "自己診断",
    "versions": "バージョン",
    "key set": "鍵セット",
    "counters": "カウンター",
    "hardware": "ハードウェア保護",
    "events": "イベント",
    "interfaces": "インターフェース",
    "event log": "イベントログ",
    "order nonce": "命令用ノンス",
    "last statement": "最終声明",
    "action": "操作",
    "order": "命令",
    "says": "内容",
    "at": "日時",
    "signed by": "署名鍵",
}
"""What the lines of a signed report are called."""

REASONS = {
    "The update engine itself broke down at this start.": "今回の起動で更新エンジン自体が故障しました。",
    "Nothing proves a counter any more: no installs until an operator unlocks the device.": "カウンターの証拠がありません。運用者が解除するまで更新は導入されません。",  # noqa: E501
    "The newest key set is lost and must be fetched again.": "最新の鍵セットが失われ、再取得が必要です。",
    "The key set has expired: nothing is installed until there is a newer one.": "鍵セットの期限が切れています。新しい鍵セットが届くまで何も導入されません。",  # noqa: E501
    "What runs is below the security floor: it may only update.": "動作中のものはセキュリティ下限より古く、更新だけが許されます。",  # noqa: E501
    "What runs was revoked: it may only update.": "動作中のものは失効しており、更新だけが許されます。",
    "No record proves what the running firmware is.": "動作中のファームウェアを証明する記録がありません。",
    "The device record is lost: orders need a nonce.": "デバイス記録が失われ、命令にはノンスが必要です。",
    "The event log cannot be kept.": "イベントログを保存できません。",
    "Entries of its event log were removed, changed or moved.": "イベントログの項目が削除・変更・移動されています。",
    "The last entry of its event log is not the one that it signed for.": "イベントログの最後の項目が、署名されたものと異なります。",  # noqa: E501
    "The device is in development mode.": "デバイスは開発モードです。",
    "This is no report of a device.": "デバイスのレポートではありません。",
    "The report was changed after the device signed it.": "レポートはデバイスの署名後に改変されています。",
    "The report has something else where bytes belong.": "レポートの形式が不正です(バイト列ではありません)。",
    "The report has an identifier that is no UUID.": "レポートの識別子が UUID ではありません。",
    "The report has event log entries of a wrong size.": "レポート内のイベントログ項目の大きさが不正です。",
    "The report cannot be read.": "レポートを読み取れません。",
}
"""What is wrong with a report or with the device that made it (`sekisho_tools.report`)."""

THINGS = {
    "target": "デバイス",
    "action": "更新指示",
    "rollout": "ロールアウト",
    "page": "ページ",
    "deed": "操作",
    "distribution set": "リリース",
    "software module": "モジュール",
    "artifact": "ファイル",
}


SENTENCES = tuple(
    (re.compile(english), japanese)
    for english, japanese in (
        *((re.escape(english), japanese) for english, japanese in REASONS.items()),
        *((rf"There is no {what} (['\"].*['\"])\.", f"{words} {{}} はありません。") for what, words in THINGS.items()),
        *(
            (rf"There is a {what} (['\"].*['\"]) already\.", f"{words} {{}} はすでにあります。")
            for what, words in THINGS.items()
        ),
        (r"Assigned by a rollout\.", "ロールアウトにより割り当て。"),
        (r"Assigned by (.*)\.", "{} が割り当て。"),
        (r"Cancelled by (.*)\.", "{} がキャンセル。"),
        (r"Replaced by a newer assignment\.", "新しい割り当てに置き換え。"),
        (r"The device fetches (.*)\.", "デバイスが {} を取得中。"),
        (r"The device is heard of again\.", "デバイスとの通信が回復。"),
        (r"The device read the order\.", "デバイスが指示を受信。"),
        (r"The last maintenance window is over\.", "最後のメンテナンス時間が終了。"),
        (r"(.*) no longer waits for the device\.", "{} が待機を終了。"),
        (r"Confirmed by (.*)\.", "{} が確認。"),
        (r"Denied by (.*)\.", "{} が拒否。"),
        (r"Device reported status code: (-?\d+)", "デバイスの状態コード: {}"),
        (r"Nothing heard for (\d+) seconds after the device took the update\.", "更新の受信後 {} 秒間応答なし。"),
        (r"paused by (.*)", "{} が一時停止"),
        (r"stopped by (.*)", "{} が停止"),
        (
            r"(\d+) of (\d+) devices of group (.*) failed or fell silent",
            "グループ {2} の {1} 台中 {0} 台が失敗または応答なし",
        ),
        (r"group (.*) ended with (\d+) of (\d+) devices updated", "グループ {0} は {2} 台中 {1} 台の更新で終了"),
        (r"after group (.*), as planned", "グループ {} の後、予定どおり一時停止"),
        (r"logged in", "ログイン"),
        (r"account locked", "アカウントをロック"),
        (r"operator (?:created|changed|removed)", "操作者アカウントを変更"),
        (r"targets? created", "デバイスを登録"),
        (r"target changed", "デバイスを変更"),
        (r"target deleted", "デバイスを削除"),
        (r"target decommissioned", "デバイスを廃棄"),
        (r"settings (?:changed|reset)", "設定を変更"),
        (r"assigned", "割り当て"),
        (r"(?:modules|distribution sets) created", "リリースを作成"),
        (r"(?:module|distribution set) deleted", "リリースを削除"),
        (r"artifact uploaded", "ファイルを登録"),
        (r"artifact deleted", "ファイルを削除"),
        (r"enrolment token made", "登録トークンを発行"),
        (r"enrolment token withdrawn", "登録トークンを取り消し"),
        (r"order left", "操作命令を登録"),
        (r"order taken away", "操作命令を取り消し"),
        (r"rollout (\w+)", "ロールアウト: {}"),
        (r"(?:action )?(?:confirmed|confirm)", "更新を確認"),
        (r"(?:action )?(?:denied|deny)", "更新を拒否"),
        (r"action (?:cancelled|cancel)", "更新をキャンセル"),
        (r"action forced?", "更新を強制"),
        (r"auto-confirm on", "自動確認を有効化"),
        (r"auto-confirm off", "自動確認を無効化"),
        # what is wrong with a report
        (r"The update engine: (.*)\.", "更新エンジン: {}。"),
        (r"The bytes in (.*) are not those that were installed\.", "{} の内容が導入時のものと異なります。"),
        (r"The file system (.*) cannot be used\.", "ファイルシステム {} を使用できません。"),
        (r"The device is in its safe state: (.*)\.", "デバイスはセーフ状態です: {}。"),
        (
            r"The interface (.*) is open and must not be on a production device\.",
            "製品モードでは許されないインターフェース {} が開いています。",
        ),
        (
            r"The product asks for (.*), which is not burnt into this chip\.",
            "製品が求める {} がこのチップに書き込まれていません。",
        ),
        (r"Degraded: (.*)\.", "機能低下: {}。"),
        (
            r"The key ([0-9a-f]+) signed the report; this device has ([0-9a-f]+)\.",
            "レポートの署名鍵は {} ですが、このデバイスの鍵は {} です。",
        ),
        (r"At byte (\d+) the CBOR .*", "レポートの CBOR が不正です(位置 {})。"),
        (
            r"(\d+) bytes follow the CBOR item; the file was appended to or damaged\.",
            "レポートの後ろに余分な {} バイトがあります。",
        ),
        # what cannot be done
        (r"The server is busy\.", "サーバーが混み合っています。しばらくしてからもう一度お試しください。"),
        (
            r"Something went wrong in the server; its log knows more\.",
            "サーバーで問題が起きました。詳細はサーバーのログにあります。",
        ),
        (r"A header is given twice that must not be\.", "重複してはならないヘッダーが重複しています。"),
        (r"The path is too long, or odd\.", "アドレスが長すぎるか、不正です。"),
        (r"Too many requests\.", "要求が多すぎます。しばらくお待ちください。"),
        (r"Too many failed attempts\.", "失敗が多すぎます。しばらくお待ちください。"),
        (r"The Host header is missing or odd\.", "Host ヘッダーがないか、不正です。"),
        (r"There is no such tenant or target\.", "そのようなデバイスはありません。"),
        (r"The account is locked for a while\.", "アカウントは一時的にロックされています。"),
        (r"The body has more than (\d+) bytes\.", "送信内容が {} バイトを超えています。"),
        (r"The body took too long\.", "送信に時間がかかりすぎました。"),
        (r"There is no such page\.", "そのようなページはありません。"),
        (r"This page cannot be used in this way\.", "このページはこの方法では使えません。"),
        (r"The request cannot be read\.", "要求を読み取れません。"),
        (r"The address cannot be read\.", "アドレスを読み取れません。"),
        (r"This form came from another site\.", "このフォームは別のサイトから送られました。"),
        (r"The form is too large\.", "フォームが大きすぎます。"),
        (r"This is no form\.", "フォームではありません。"),
        (
            r"The form is out of date; load the page again\.",
            "フォームが古くなっています。ページを読み込み直してください。",
        ),
        (r"This needs the role operator\.", "この操作には operator の権限が必要です。"),
        (r"This needs the role admin\.", "この操作には admin の権限が必要です。"),
        (r"Say why\.", "理由を入力してください。"),
        (
            r"The distribution set is incomplete: a module without an artifact, or none\.",
            "リリースが不完全です(ファイルのないモジュール、またはモジュールなし)。",
        ),
        (r"The maintenance window never opens\.", "メンテナンス時間が一度も来ません。"),
        (r"A timeforced (?:assignment|rollout) needs a forcetime\.", "timeforced には forcetime が必要です。"),
        (r"(['\"].*['\"]) was decommissioned\.", "{} は廃棄されています。"),
        (r"(['\"].*['\"]) was decommissioned; its id is not used again\.", "{} は廃棄済みで、ID は再使用されません。"),
        (r"This key belongs to a device that was decommissioned\.", "この鍵は廃棄済みのデバイスのものです。"),
        (r"The action is closed\.", "この更新指示は終了しています。"),
        (r"An action has at most (\d+) reports\.", "更新指示への報告は {} 件までです。"),
        (r"The action cannot be cancelled any more\.", "この更新指示はもうキャンセルできません。"),
        (
            r"Only an action that is being cancelled can be forced\.",
            "待機を終了できるのはキャンセル中の更新指示だけです。",
        ),
        (r"The action is not being cancelled\.", "この更新指示はキャンセル中ではありません。"),
        (r"Auto-confirm is active already\.", "自動確認はすでに有効です。"),
        (r"A rollout has 1 to (\d+) groups\.", "ロールアウトのグループは 1~{} 個です。"),
        (r"The filter matches no target\.", "条件に合うデバイスがありません。"),
        (
            r"The groups do not add up to all targets; the last one should take 100 percent of what is left\.",
            "グループが全デバイスを覆いません。最後のグループは残りの 100 % にしてください。",
        ),
        (
            r"A group has at most (\d+) targets; make more groups\.",
            "グループは {} 台までです。グループを増やしてください。",
        ),
        (
            r"The rollout is (?P<state>.*), so this cannot be done\.",
            "ロールアウトは「{state}」のため、実行できません。",
        ),
        (r"Somebody else must approve this rollout\.", "このロールアウトは作成者以外が承認する必要があります。"),
        (r"There is no group that could begin\.", "開始できるグループがありません。"),
        (r"Only a rollout that has ended can be retried\.", "再試行できるのは終了したロールアウトだけです。"),
        (r"Stop the rollout first\.", "先にロールアウトを停止してください。"),
    )
)
"""What the server itself writes into histories, says of reports and refuses: the whole English sentence -> Japanese
with its parts; the part `state` is a word of `JAPANESE`."""

VALUES = tuple(
    (re.compile(english), japanese)
    for english, japanese in (
        (r"ok", "正常"),
        (r"degraded: (.*)", "機能低下: {}"),
        (r"development", "開発"),
        (r"production", "製品"),
        (r"lost", "喪失"),
        (r"none open", "開いているものなし"),
        (r"not known", "不明"),
        (r"version (\d+), expires (.*)", "バージョン {}、期限 {}"),
        (
            r"runs, release (\d+), (\d+) bytes, manifest (\w+), image (\w+)",
            "動作中、リリース {}、{} バイト、マニフェスト {}、イメージ {}",
        ),
        (
            r"idle, release (\d+), (\d+) bytes, manifest (\w+), image (\w+)",
            "待機、リリース {}、{} バイト、マニフェスト {}、イメージ {}",
        ),
        (r"action (\d+), obeyed, (.*)", "操作 {}、実行済み、{}"),
        (r"action (\d+), (\w+), (.*)", "操作 {}、{}、{}"),
        (r"all (\d+) places were erased and read back", "全 {} か所を消去し、読み戻して確認済み"),
        (
            r"begins now to erase (\d+) places; nothing else runs before that is done",
            "これから {} か所を消去します。完了まで他の処理は動きません",
        ),
    )
)
"""Values in a signed report that are words of ours."""


def japanese(sentence: str) -> str:
    """A sentence that the server wrote, in Japanese; whatever devices or people wrote stays as it is."""
    for english, words in SENTENCES:
        found = english.fullmatch(sentence)
        if found:
            named = {name: JAPANESE.get(text.replace(" ", "_"), text) for name, text in found.groupdict().items()}
            return words.format(*found.groups(), **named)
    return sentence


def reported(name: str, value: str) -> tuple[str, str]:
    """A line of a signed report (`reports.shown`) in Japanese; what the device itself wrote stays as it is."""
    head, _, rest = name.partition(" ")
    verbatim = name in ("product", "versions")
    if name in NAMES:
        name = NAMES[name]
    elif head == "order":
        name = f"命令 {rest}"
    elif rest.startswith("slot "):
        name = f"{head} スロット {rest[5:]}"
    for english, words in () if verbatim else VALUES:
        found = english.fullmatch(value)
        if found:
            return name, words.format(*found.groups())
    return name, value
