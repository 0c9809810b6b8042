namespace Rho.Training;

/// <summary>The output folder of a run, held by one process at a time.</summary>
internal sealed class RunFolder : IDisposable
{
    public const string RunFileName = "run.json";
    private const string LockFileName = "run.lock";
    private readonly FileStream _lock;

    private RunFolder(string directory, FileStream held) => (Directory, _lock) = (directory, held);

    public string Directory { get; }

    public string TensorBoard => Path.Combine(Directory, "tensorboard");

    public static string CheckpointsOf(string directory) => Path.Combine(directory, "checkpoints");

    public static string FinalModelOf(string directory) => Path.Combine(directory, "final");

    /// <exception cref="RhoException">The folder has a run already.</exception>
    public static void RefuseUsed(string directory)
    {
        if (File.Exists(Path.Combine(directory, RunFileName)))
            throw new RhoException($"output {directory} has a run already: resume it (rho train --resume), or choose another folder");
        if (File.Exists(directory)) throw new RhoException($"output {directory} is a file, to be a folder");
    }

    /// <summary>Makes the folder of a new run.</summary>
    public static RunFolder Create(RunFile run)
    {
        try
        {
            System.IO.Directory.CreateDirectory(run.Output);
            var folder = Lock(run.Output);
            try
            {
                RefuseUsed(run.Output);
                AtomicFile.WriteText(Path.Combine(run.Output, RunFileName), run.ToJson());
                System.IO.Directory.CreateDirectory(CheckpointsOf(run.Output));
                return folder;
            }
            catch
            {
                folder.Dispose();
                throw;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"output {run.Output} cannot be written: {e.Message}", e);
        }
    }

    /// <summary>Opens the folder of a run that was started before.</summary>
    public static RunFolder Open(string directory)
    {
        if (!File.Exists(Path.Combine(directory, RunFileName))) throw new NotFoundException($"{directory} has no run: it has no {RunFileName}");
        return Lock(directory);
    }

    private static RunFolder Lock(string directory)
    {
        try
        {
            return new RunFolder(directory, new FileStream(Path.Combine(directory, LockFileName), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None));
        }
        catch (IOException e) when (e is not (DirectoryNotFoundException or FileNotFoundException or PathTooLongException))
        {
            throw new RhoException($"{directory} is in use by a run in another process ({e.Message})", e);
        }
    }

    public void Dispose() => _lock.Dispose();
}
