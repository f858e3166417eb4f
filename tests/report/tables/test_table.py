from mitfrnet.report.tables.table import Entry, Line, Table, latex

TABLE = Table(
    name="scores_my_corpus",
    caption="Scores of my_corpus.",
    notes=("5 clips.",),
    heads=("Predictor", "MAE ↓", "Acc-2 % ↑"),
    lines=(
        Line("A & B", [Entry("-0.100 ± 0.020", bold=True), Entry("-")], group="One"),
        Line("C", [Entry("1.000", flags=("constant",)), Entry("50.0")], "Two", flags=("odd",)),
    ),
    records=({"predictor": "a,b", "mae": -0.1}, {"predictor": "c", "mae": None}),
)


def test_latex_by_hand():
    assert TABLE.latex().splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        r"\caption{Scores of my\_corpus. 5 clips. a: constant. b: odd.}",
        r"\label{tab:scores-my-corpus}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"Predictor & MAE $\downarrow$ & Acc-2 \% $\uparrow$ \\",
        r"\midrule",
        r"\multicolumn{3}{l}{One} \\",
        r"A \& B & \textbf{$-$0.100 $\pm$ 0.020} & -- \\",
        r"\midrule",
        r"\multicolumn{3}{l}{Two} \\",
        r"C$^{\mathrm{b}}$ & 1.000$^{\mathrm{a}}$ & 50.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_special_characters_of_latex_are_escaped():
    assert latex("a_b\n{c} 5% $x ~^ \\input") == (
        r"a\_b \{c\} 5\% \$x \textasciitilde{}\textasciicircum{} \textbackslash{}input"
    )
    assert latex("MIT-FRNet [-0.1, -2]") == "MIT-FRNet [$-$0.1, $-$2]"


def test_csv_holds_the_records():
    assert TABLE.csv() == 'predictor,mae\n"a,b",-0.1\nc,\n'
