using Rho.Cli;
using Rho.Cli.Terminal;

using var interruption = new Interruption();
return await CommandLine.RunAsync(args, interruption);
