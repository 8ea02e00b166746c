"""Words of the index of an audit bundle, in English and Japanese."""

from __future__ import annotations

WORDS = {
    "en": {
        "own_name": "English",
        "title": "Audit bundle",
        "lead": "What is needed to judge this update system from outside: what it promises and which tests show it, "
        "what was tried against it, which keys there are, what was signed and released.",
        "how": "sekisho audit verify finds files that were removed, added or changed; manifest.json lists the "
        "SHA-256 of each. Red lines are gaps: what was not given, or belongs to another state of the engine.",
        "requirements": "Requirements of the CCDS guideline, and the last test results",
        "evidence": "Evidence: power cuts, seeded bugs, mutation, measurements",
        "threats": "Threat model",
        "decisions": "Decisions",
        "policy": "Security policy: supported versions, reporting",
        "engine": "Source and size of the first update engine",
        "host_sbom": "SBOM of the desk tools",
        "licences": "Licences",
        "keys": "Key inventory (public facts only)",
        "log": "Signing log",
        "releases": "Releases, with SBOMs and product sheets",
    },
    "ja": {
        "own_name": "日本語",
        "title": "監査資料",
        "lead": "この更新システムを外部から評価するための資料です。何を約束し、どのテストがそれを示すか、"
        "どのような攻撃や故障を試したか、どの鍵があり、何に署名し、何を公開したかを収めています。",
        "how": "sekisho audit verify は、ファイルの削除・追加・改変を検出します。"
        "各ファイルのSHA-256はmanifest.jsonにあります。"
        "赤い行は不足を示します(渡されなかった資料、または別の状態のエンジンについての記録)。各文書は英語です。",
        "requirements": "CCDSガイドラインの要件と最新のテスト結果",
        "evidence": "証拠:電源断、埋め込みバグ、ミューテーション、測定",
        "threats": "脅威モデル",
        "decisions": "設計上の決定",
        "policy": "セキュリティ方針:サポート対象の版、脆弱性の報告",
        "engine": "ファースト・アップデート・エンジンのソースとサイズ",
        "host_sbom": "署名・配布ツールのSBOM",
        "licences": "ライセンス",
        "keys": "鍵の一覧(公開情報のみ)",
        "log": "署名記録",
        "releases": "リリース(SBOM、製品情報シートを含む)",
    },
}

NOTES = {
    "en": {
        "no_results": "no results are recorded here (make requirements)",
        "other_engine": "{what} was recorded for engine {recorded}, the one in this bundle is {here}",
        "changed": "recorded with changes that were not committed",
        "not_found": "not found where this sekisho runs from",
        "over": "over its budget (decision 0008 says why)",
        "bad_key": "{name} cannot be read ({why})",
        "open_key": "the private half of the release environment's key {label!r} ({key_id}) is not encrypted",
        "no_keys": "no key directory, token or key set was named",
        "no_log": "no signing log was named",
        "bad_log": "the chain does not hold, so the log is left out: {why}",
        "no_release": "no release was named",
        "bad_release": "{name}: {why}",
        "no_sbom": "{name}: its SBOM is not there",
        "other_sidecar": "{name} is of another release and left out",
    },
    "ja": {
        "no_results": "テスト結果の記録がありません(make requirements)",
        "other_engine": "{what} は別のエンジン {recorded} についての記録です(この資料のエンジンは {here})",
        "changed": "コミットされていない変更がある状態での記録です",
        "not_found": "この sekisho の実行元に見つかりません",
        "over": "目標のサイズを超えています(理由は決定0008)",
        "bad_key": "{name} を読めません({why})",
        "open_key": "リリース環境の鍵 {label!r}({key_id})の秘密鍵が暗号化されていません",
        "no_keys": "鍵のディレクトリ、トークン、鍵セットのいずれも指定されていません",
        "no_log": "署名記録が指定されていません",
        "bad_log": "連鎖が正しくないため、署名記録を入れていません:{why}",
        "no_release": "リリースが指定されていません",
        "bad_release": "{name}:署名に問題があります({why})",
        "no_sbom": "{name}:SBOMがありません",
        "other_sidecar": "{name} は別のリリースの付属記録なので入れていません",
    },
}
"""Gaps and warnings."""
