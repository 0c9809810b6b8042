namespace Rho.Cli.Quickstart;

/// <summary>Clean arithmetic and algebra problems with worked answers, all correct.</summary>
internal static class Problems
{
    private static readonly string[] Names = ["Anna", "Ben", "Chen", "Dara", "Emil", "Fatima", "Goran", "Hana", "Ivan", "Julia", "Kofi", "Lena"];
    private static readonly string[] Things = ["apples", "books", "coins", "marbles", "pencils", "shells", "stamps", "tickets"];

    /// <summary>One problem as "Question: ...\nAnswer: ... The answer is N.\n".</summary>
    public static string Next(Random random) => random.Next(12) switch
    {
        0 => Sum(random),
        1 => Difference(random),
        2 => Product(random),
        3 => Quotient(random),
        4 => Bought(random),
        5 => Shared(random),
        6 => Linear(random),
        7 => Factored(random),
        8 => Percentage(random),
        9 => Rectangle(random),
        10 => Sequence(random),
        _ => Mean(random),
    };

    private static string Sum(Random random)
    {
        var (a, b) = (random.Next(10, 100), random.Next(10, 100));
        return Worked($"What is {a} + {b}?", $"{a} + {b} = {a + b}.", a + b);
    }

    private static string Difference(Random random)
    {
        var (rest, b) = (random.Next(1, 60), random.Next(10, 60));
        return Worked($"What is {rest + b} - {b}?", $"{rest + b} - {b} = {rest}.", rest);
    }

    private static string Product(Random random)
    {
        var (a, b) = (random.Next(2, 13), random.Next(2, 13));
        return Worked($"What is {a} times {b}?", $"{a} * {b} = {a * b}.", a * b);
    }

    private static string Quotient(Random random)
    {
        var (a, b) = (random.Next(2, 13), random.Next(2, 13));
        return Worked($"What is {a * b} divided by {b}?", $"{a * b} / {b} = {a}.", a);
    }

    private static string Bought(Random random)
    {
        var (name, thing) = (Pick(random, Names), Pick(random, Things));
        var (a, b) = (random.Next(5, 50), random.Next(2, 30));
        return Worked(
            $"{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have now?",
            $"{name} has {a} + {b} = {a + b} {thing}.", a + b);
    }

    private static string Shared(Random random)
    {
        var (name, thing) = (Pick(random, Names), Pick(random, Things));
        var (friends, each) = (random.Next(2, 10), random.Next(2, 10));
        return Worked(
            $"{name} shares {friends * each} {thing} equally among {friends} friends. How many {thing} does each friend get?",
            $"Each friend gets {friends * each} / {friends} = {each} {thing}.", each);
    }

    private static string Linear(Random random)
    {
        var (factor, x, shift) = (random.Next(2, 10), random.Next(1, 13), random.Next(1, 30));
        var right = (factor * x) + shift;
        return Worked(
            $"Solve {factor}x + {shift} = {right}.",
            $"Subtract {shift} from both sides: {factor}x = {factor * x}. Divide both sides by {factor}: x = {x}.", x);
    }

    private static string Factored(Random random)
    {
        var (a, b) = (random.Next(1, 10), random.Next(1, 10));
        return Worked(
            $"Factor x^2 + {a + b}x + {a * b} and give the larger root.",
            $"{a} + {b} = {a + b} and {a} * {b} = {a * b}, so x^2 + {a + b}x + {a * b} = (x + {a})(x + {b}). The roots are -{a} and -{b}.",
            -Math.Min(a, b));
    }

    private static string Percentage(Random random)
    {
        var (percent, hundreds) = (random.Next(1, 20) * 5, random.Next(1, 10));
        return Worked(
            $"What is {percent}% of {hundreds * 100}?",
            $"1% of {hundreds * 100} is {hundreds}, and {percent} * {hundreds} = {percent * hundreds}.", percent * hundreds);
    }

    private static string Rectangle(Random random)
    {
        var (a, b) = (random.Next(2, 13), random.Next(2, 13));
        return Worked(
            $"A rectangle is {a} cm long and {b} cm wide. What is its perimeter in cm?",
            $"{a} + {b} = {a + b}, and 2 * {a + b} = {2 * (a + b)}.", 2 * (a + b));
    }

    private static string Sequence(Random random)
    {
        var (first, step) = (random.Next(1, 20), random.Next(2, 10));
        return Worked(
            $"What comes next: {first}, {first + step}, {first + (2 * step)}, {first + (3 * step)}?",
            $"Each number is {step} more than the one before. {first + (3 * step)} + {step} = {first + (4 * step)}.", first + (4 * step));
    }

    private static string Mean(Random random)
    {
        var (mean, spread) = (random.Next(10, 40), random.Next(1, 10));
        return Worked(
            $"What is the mean of {mean - spread}, {mean} and {mean + spread}?",
            $"{mean - spread} + {mean} + {mean + spread} = {3 * mean}, and {3 * mean} / 3 = {mean}.", mean);
    }

    private static string Worked(string question, string work, int answer) => $"Question: {question}\nAnswer: {work} The answer is {answer}.\n";

    private static string Pick(Random random, string[] words) => words[random.Next(words.Length)];
}
