from more_r1.cli import main

main()
