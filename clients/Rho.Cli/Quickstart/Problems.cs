using System.Globalization;

namespace Rho.Cli.Quickstart;

/// <summary>
/// Questions of general knowledge and arithmetic with short answers. Each turns on one word or number, so that a model of a few hundred
/// thousand weights learns to answer within a minute; who asks makes the texts many.
/// </summary>
internal static class Problems
{
    private const string AnswerMark = "\nAnswer:";

    private static readonly string[] Names =
    [
        "Anna", "Ben", "Chen", "Dara", "Emil", "Fatima", "Goran", "Hana", "Ivan", "Julia", "Kofi", "Lena", "Mona", "Nils", "Olga", "Pedro",
        "Rosa", "Sven", "Tara", "Umar", "Vera", "Wang", "Yuri", "Zoe",
    ];

    /// <summary>Each kind of question with {0} for what it turns on, and the answers.</summary>
    private static readonly (string Question, (string Key, string Answer)[] Facts)[] Kinds =
    [
        ("what is the capital of {0}?", Pairs("France Paris, Italy Rome, Spain Madrid, Norway Oslo, Japan Tokyo, Egypt Cairo, Peru Lima, Cuba Havana, Kenya Nairobi, Greece Athens, Austria Vienna, Poland Warsaw, Portugal Lisbon, Russia Moscow, China Beijing, Sweden Stockholm")),
        ("what is the opposite of {0}?", Pairs("hot cold, big small, old young, wet dry, up down, left right, early late, full empty, rich poor, strong weak, open closed, hard soft, fast slow, black white, good bad, long short")),
        ("what do you call a young {0}?", Pairs("dog puppy, cat kitten, cow calf, horse foal, sheep lamb, goat kid, bear cub, duck duckling")),
        ("what is {0} squared?", Numbers(2, 9, number => number * number)),
        ("what is twice {0}?", Numbers(11, 24, number => 2 * number)),
        ("what number comes after {0}?", Numbers(50, 65, number => number + 1)),
        ("what is {0} plus ten?", Numbers(70, 85, number => number + 10)),
    ];

    /// <summary>One problem as "Question: ...\nAnswer: ....\n", answered right.</summary>
    public static string Next(Random random)
    {
        var (prompt, kind, fact) = Draw(random);
        return $"{prompt} {Kinds[kind].Facts[fact].Answer}.\n";
    }

    /// <summary>One problem answered right, the same with the answer to another question of its kind, and where in the latter that answer stands.</summary>
    public static (string Right, string Wrong, int Start, int Length) NextMistaken(Random random)
    {
        var (prompt, kind, fact) = Draw(random);
        var facts = Kinds[kind].Facts;
        var wrong = facts[(fact + random.Next(1, facts.Length)) % facts.Length].Answer;
        return ($"{prompt} {facts[fact].Answer}.\n", $"{prompt} {wrong}.\n", prompt.Length + 1, wrong.Length);
    }

    /// <summary>Cuts a problem after "Answer:".</summary>
    public static (string Prompt, string Answer) Split(string problem)
    {
        var end = problem.IndexOf(AnswerMark, StringComparison.Ordinal) + AnswerMark.Length;
        return (problem[..end], problem[end..].Trim());
    }

    private static (string Prompt, int Kind, int Fact) Draw(Random random)
    {
        var kind = random.Next(Kinds.Length);
        var fact = random.Next(Kinds[kind].Facts.Length);
        var name = Names[random.Next(Names.Length)];
        var question = string.Format(CultureInfo.InvariantCulture, Kinds[kind].Question, Kinds[kind].Facts[fact].Key);
        return ($"Question: {name} asks, {question}{AnswerMark}", kind, fact);
    }

    private static (string Key, string Answer)[] Pairs(string list) => [.. list.Split(", ").Select(pair => pair.Split(' ')).Select(pair => (pair[0], pair[1]))];

    private static (string Key, string Answer)[] Numbers(int first, int last, Func<int, int> answer) =>
        [.. Enumerable.Range(first, last - first + 1).Select(number => ($"{number}", $"{answer(number)}"))];
}
