"""Words of the index of an audit bundle, in English and Japanese."""

from __future__ import annotations

WORDS = {
    "en": {
        "own_name": "English",
        "title": "Audit bundle",
        "lead": "What is needed to judge this update system from outside: what it promises and which tests show it, "
        "what was tried against it, which keys there are, what was signed and released.",
        "how": "`sekisho audit verify` finds files that were removed, added or changed; manifest.json lists the "
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
        "how": "`sekisho audit verify` は、ファイルの削除・追加・改変を検出します。"
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
